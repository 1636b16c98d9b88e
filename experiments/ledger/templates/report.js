// Filters: rows of the table and the sections below follow the verdicts ticked and the words searched for.
const form = document.getElementById("filters");
const rows = [...document.querySelectorAll("#claims tbody tr")];
const text = (row) => `${row.dataset.text} ${row.querySelector(".statement").textContent}`.toLowerCase();  // H_ℓ and Hℓ

function apply() {
  const chosen = new FormData(form);
  const verdicts = chosen.getAll("verdict");
  const words = chosen.get("text").toLowerCase().split(/\s+/);
  for (const row of rows) {
    row.hidden = !verdicts.includes(row.dataset.verdict) || !words.every((word) => text(row).includes(word));
    document.getElementById(row.dataset.claim).hidden = row.hidden;
  }
  const shown = rows.filter((row) => !row.hidden).length;
  form.querySelector("output").textContent = `${shown} of ${rows.length} claims`;
  document.getElementById("none").hidden = shown > 0;
}

form.addEventListener("input", apply);
form.addEventListener("submit", (event) => event.preventDefault());
window.addEventListener("pageshow", apply);  // a reload or "back" may have restored what was ticked
form.hidden = false;
apply();
