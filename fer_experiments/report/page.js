"use strict";
// A click on a header sorts its table, a second one the other way round; empty cells stay at the end.
for (const button of document.querySelectorAll("table.sortable th button")) {
  button.addEventListener("click", () => {
    const header = button.parentElement, table = header.closest("table"), body = table.tBodies[0];
    const down = header.getAttribute("aria-sort") === "ascending";
    for (const other of table.querySelectorAll("th")) other.setAttribute("aria-sort", "none");
    header.setAttribute("aria-sort", down ? "descending" : "ascending");
    const keyed = [...body.rows].map((row) => {
      const cell = row.cells[header.cellIndex];
      return { row, text: cell.textContent, number: "value" in cell.dataset ? Number(cell.dataset.value) : null };
    });
    keyed.sort((a, b) => {
      if ((a.text === "") !== (b.text === "")) return a.text === "" ? 1 : -1;
      const order = a.number !== null && b.number !== null
        ? a.number - b.number : a.text.localeCompare(b.text, "en", { numeric: true });
      return down ? -order : order;
    });
    body.append(...keyed.map((entry) => entry.row));
  });
}

for (const button of document.querySelectorAll("button[data-update]")) {
  button.addEventListener("click", () => {
    Plotly.update(button.dataset.chart, ...JSON.parse(button.dataset.update));
    for (const other of button.parentElement.children) other.setAttribute("aria-pressed", other === button);
  });
}

for (const button of document.querySelectorAll("button[data-copy]")) {
  button.addEventListener("click", async () => {
    const source = document.getElementById(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(source.textContent);
      button.textContent = "Copied";
    } catch {  // not allowed: leave it selected, for Ctrl-C
      getSelection().selectAllChildren(source);
      button.textContent = "Press Ctrl-C";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
}

// Lines brushed in the parallel coordinates select rows of the leaderboard.
const coordinates = document.getElementById("coordinates-chart"), trials = document.getElementById("trials");
if (coordinates && trials) {
  const column = [...trials.tHead.rows[0].cells].findIndex((cell) => cell.textContent === "trial");
  coordinates.on("plotly_restyle", () => {
    const { dimensions, customdata } = coordinates.data[0];
    const brushed = dimensions.filter((d) => d.constraintrange && d.constraintrange.length);
    const inside = (d, at) => [d.constraintrange].flat(Array.isArray(d.constraintrange[0]) ? 1 : 0)
      .some(([low, high]) => d.values[at] >= low && d.values[at] <= high);
    const kept = new Set(customdata.filter((_, at) => brushed.every((d) => inside(d, at))).map(String));
    for (const row of trials.tBodies[0].rows) {
      row.hidden = brushed.length > 0 && !kept.has(row.cells[column].dataset.value);
    }
    document.getElementById("selected").textContent = brushed.length
      ? `${kept.size} of ${customdata.length} trials selected in the parallel coordinates.` : "";
  });
}

// Plotly knows no dark mode: backgrounds are transparent, the letters follow the page.
const dark = matchMedia("(prefers-color-scheme: dark)");
const colour = () => {
  const ink = getComputedStyle(document.documentElement).getPropertyValue("--ink").trim();
  for (const chart of document.querySelectorAll(".js-plotly-plot")) Plotly.relayout(chart, { "font.color": ink });
};
dark.addEventListener("change", colour);
if (dark.matches) colour();
