"use strict";
const details = [...document.querySelectorAll("details")], tools = document.querySelector(".tools");
// a link to a section that is folded away opens it
const reveal = () => {
  const target = location.hash.length > 1 && document.getElementById(location.hash.slice(1));
  const folded = target && (target.closest("details") || target.querySelector(":scope > details"));
  if (folded) folded.open = true;
};
addEventListener("hashchange", reveal);
reveal();
if (tools) {
  const button = tools.firstElementChild;
  tools.hidden = false;
  button.addEventListener("click", () => {
    const open = button.textContent === button.dataset.opens;
    for (const each of details) each.open = open;
    button.textContent = open ? button.dataset.folds : button.dataset.opens;
  });
}
