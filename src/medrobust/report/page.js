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

// charts: the values where the pointer is, or where the arrow keys have led, in words below the chart
for (const places of document.querySelectorAll("g.readings")) {
  const svg = places.ownerSVGElement, rects = [...places.children];
  const plot = document.createElement("div"), words = document.createElement("p");
  plot.className = "plot";
  plot.tabIndex = 0;
  plot.setAttribute("role", "group");
  plot.setAttribute("aria-label", "Chart: the left and right arrow keys read its values");
  words.className = "reading";
  words.setAttribute("aria-live", "polite");
  svg.replaceWith(plot);
  plot.append(svg);
  plot.after(words);
  let at = -1;
  const show = (index) => {
    if (rects[at]) rects[at].classList.remove("at");
    at = Math.max(0, Math.min(rects.length - 1, index));
    rects[at].classList.add("at");
    words.textContent = rects[at].textContent;
  };
  rects.forEach((rect, index) => rect.addEventListener("pointerenter", () => show(index)));
  plot.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    show(at + step);
  });
}
