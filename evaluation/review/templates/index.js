"use strict";
// The list of questions: filters, recorded labels on demand, and no more rows at once than a reader can take in.
const AT_ONCE = 25;
const field = (name) => document.getElementById(name);
const rows = [...document.querySelectorAll("#cases tbody tr")];
const words = rows.map((row) => [...row.cells].filter((c) => !c.matches(".truth")).map((c) => c.textContent).join(" ").toLowerCase());
const filters = ["step", "state", "right"].map((name) => [name, field("filter-" + name)]).filter(([, box]) => box);
const recorded = document.querySelector("#filters [type=checkbox]");
const truths = [...document.querySelectorAll(".truth")];
let limit = AT_ONCE;

function show() {
  const text = field("filter-text").value.trim().toLowerCase();
  let found = 0;
  rows.forEach((row, i) => {
    const wanted = words[i].includes(text) && filters.every(([name, box]) => !box.value || row.dataset[name] === box.value);
    row.hidden = !wanted || ++found > limit;
  });
  const shown = Math.min(found, limit);
  const status = field("shown");
  status.textContent = status.dataset.text.replace("{shown}", shown).replace("{found}", found);
  field("more").hidden = found <= limit;
}

field("filters").hidden = false;
field("filters").addEventListener("input", () => { limit = AT_ONCE; show(); });
field("more").addEventListener("click", () => {
  const next = rows.filter((row) => !row.hidden).pop();
  limit = Infinity;
  show();
  // The button is gone: go on where it stood.
  const following = rows.slice(rows.indexOf(next) + 1).find((row) => !row.hidden);
  if (following) following.querySelector("a").focus();
});
if (recorded) {
  const uncover = () => truths.forEach((cell) => { cell.hidden = !recorded.checked; });
  recorded.addEventListener("change", uncover);
  uncover();
}
show();
