"use strict";
const table = document.querySelector("table.league"), body = table.tBodies[0], rows = [...body.rows];
const heads = [...table.tHead.rows[0].cells], form = document.querySelector(".filters");
const key = (row, column) => row.cells[column].dataset.sort || "";

// sorting: a head is a button; rows that are equal keep their order
heads.forEach((head, column) => {
  const button = document.createElement("button"), numbers = head.dataset.kind === "number";
  button.type = "button";
  button.textContent = head.textContent;
  head.replaceChildren(button);
  button.addEventListener("click", () => {
    const was = head.getAttribute("aria-sort");
    const rising = was ? was === "descending" : !numbers; // of numbers the highest first
    for (const each of heads) each.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", rising ? "ascending" : "descending");
    const sign = rising ? 1 : -1;
    const compare = numbers
      ? (a, b) => Number(key(a, column)) - Number(key(b, column))
      : (a, b) => key(a, column).localeCompare(key(b, column), "en", { numeric: true });
    rows.sort((a, b) => sign * compare(a, b));
    body.append(...rows);
  });
});

// filters: rows that match all of them are shown
const show = () => {
  const chosen = [...form.querySelectorAll("select")].filter((select) => select.value);
  const words = form.querySelector("[data-search]").value.trim().toLowerCase();
  const believed = form.querySelector("[data-believed]").checked;
  let shown = 0;
  for (const row of rows) {
    row.hidden = chosen.some((select) => key(row, Number(select.dataset.column)) !== select.value)
      || (words !== "" && !row.textContent.toLowerCase().includes(words))
      || (believed && "inconclusive" in row.dataset);
    if (!row.hidden) shown += 1;
  }
  document.getElementById("count").textContent = `${shown} of ${rows.length} rows.`;
};
form.addEventListener("input", show);
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("reset", () => setTimeout(show));
form.hidden = false;
show();
