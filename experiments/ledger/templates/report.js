// Filters: rows of the matrix and the cards below follow the verdicts ticked, the source and the words searched for.
const form = document.getElementById("filters");
const rows = [...document.querySelectorAll(".matrix tr[data-claim]")];
const text = (row) => `${row.dataset.text} ${row.querySelector(".statement").textContent}`.toLowerCase();  // H_ℓ and Hℓ

function apply() {
  const chosen = new FormData(form);
  const verdicts = chosen.getAll("verdict");
  const source = chosen.get("source");
  const words = chosen.get("text").toLowerCase().split(/\s+/);
  for (const row of rows) {
    const elsewhere = source && row.dataset.source !== source;
    row.hidden = elsewhere || !verdicts.includes(row.dataset.verdict) || !words.every((word) => text(row).includes(word));
    document.getElementById(row.dataset.claim).hidden = row.hidden;
  }
  const shown = rows.filter((row) => !row.hidden).length;
  form.querySelector("output").textContent = `${shown} of ${rows.length} statements`;
  document.getElementById("none").hidden = shown > 0;
}

// A link to what is folded, a question, opens it.
function unfold() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target && target.matches("details")) target.open = true;
}

form.addEventListener("input", apply);
form.addEventListener("submit", (event) => event.preventDefault());
window.addEventListener("pageshow", apply);  // a reload or "back" may have restored what was ticked
window.addEventListener("hashchange", unfold);
form.hidden = false;
apply();
unfold();
