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

// What is selected on the axes of the parallel coordinates is shown by rows, points, curves and the form, which sets it.
const coordinates = document.getElementById("coordinates-chart"), form = document.getElementById("selection");
if (form) {
  const charts = [...document.querySelectorAll(".js-plotly-plot")].filter((chart) => chart !== coordinates);
  const trials = document.getElementById("trials"), status = document.getElementById("selected");
  const column = [...trials.tHead.rows[0].cells].findIndex((cell) => cell.textContent === "trial");
  const ranges = ({ constraintrange: some }) => some?.length ? (Array.isArray(some[0]) ? some : [some]) : [];
  const within = (axis, at) => ranges(axis).some(([low, high]) => low <= at && at <= high);
  // Selections reach a hair beyond what the form says: its ends are inside, and Plotly selects all by [x, x].
  const hair = ({ range: [low, high] }) => (high - low || 1) / 1e6;
  const axisOf = (field) => coordinates.data[0].dimensions.find((axis) => axis.name === field.name);
  const changed = new Set();  // fieldsets that the axes do not follow yet
  let timer;

  // Plotly's ticks on the axis of a number, in the places and with the texts of its field's.
  const mark = () => {
    for (const drawn of coordinates.querySelectorAll(".axis")) {
      const axis = coordinates.data[0].dimensions[drawn.__data__.visibleIndex], [low, high] = axis.range;
      const line = drawn.querySelector(".domain"), { y, height } = line.getBBox(), tick = drawn.querySelector(".tick");
      const made = JSON.parse(form.elements[axis.name].dataset.ticks).map(([place, text]) => {
        const copy = tick.cloneNode(true);
        copy.setAttribute("transform", `translate(0,${y + height * (high - place) / (high - low)})`);
        copy.querySelector("text").textContent = text;
        return copy;
      });
      if (made.length) drawn.replaceChildren(line, ...made);
    }
  };
  const say = (field, axis) => {
    for (const input of field.querySelectorAll("[type=range]")) {
      const tick = JSON.parse(field.dataset.ticks).find(([place]) => Math.abs(place - input.at) < hair(axis));
      const text = tick?.[1] ?? String(Number(("log" in field.dataset ? 10 ** input.at : input.at).toPrecision(4)));
      input.nextElementSibling.textContent = text;
      input.setAttribute("aria-valuetext", text);
    }
  };
  const fill = (field, axis) => {
    for (const box of field.querySelectorAll("[type=checkbox]")) box.checked = within(axis, Number(box.value));
    const [from, to] = field.querySelectorAll("[type=range]"), ends = ranges(axis).flat(), [low, high] = axis.range;
    if (from) {  // what they stand for is more exact than their hundredths
      from.at = ends.length ? Math.max(low, Math.min(...ends) + hair(axis)) : low;
      to.at = ends.length ? Math.min(high, Math.max(...ends) - hair(axis)) : high;
      for (const end of [from, to]) end.value = ends.length ? 100 * (end.at - low) / (high - low || 1) : end.defaultValue;
    }
    say(field, axis);
  };
  const restyle = (chart, attribute, told, value) => {
    const some = chart.data.flatMap((trace, place) => told in trace ? [place] : []);
    if (some.length) Plotly.restyle(chart, { [attribute]: some.map((place) => value(chart.data[place][told])) }, some);
  };
  const show = () => {
    const { dimensions, ids } = coordinates.data[0];
    const brushed = dimensions.filter((axis) => ranges(axis).length), all = !brushed.length;
    const kept = new Set(ids.filter((_, at) => brushed.every((axis) => within(axis, axis.values[at]))));
    status.textContent = all ? `All ${ids.length} trials.` : `${kept.size} of ${ids.length} trials selected.`;
    for (const row of trials.tBodies[0].rows) row.hidden = !all && !kept.has(row.cells[column].dataset.value);
    for (const axis of dimensions) {
      const field = form.elements[axis.name];
      if (!changed.has(field)) fill(field, axis);
    }
    for (const chart of charts) {
      restyle(chart, "selectedpoints", "ids", (own) => all ? null : own.flatMap((id, at) => kept.has(id) ? [at] : []));
      restyle(chart, "opacity", "meta", (own) => all || kept.has(own) ? 1 : 0.15);
    }
  };

  const wanted = (field) => {
    const boxes = [...field.querySelectorAll("[type=checkbox]:checked")].map((box) => Number(box.value));
    if (boxes.length) return boxes.map((at) => [at - 0.25, at + 0.25]);
    const [from, to] = field.querySelectorAll("[type=range]"), axis = axisOf(field), [low, high] = axis.range;
    const whole = !from || (from.at <= low + hair(axis) && to.at >= high - hair(axis));
    return whole ? null : [[from.at - hair(axis), to.at + hair(axis)]];
  };
  const select = (fields, value) => {
    const places = new Map(coordinates.data[0].dimensions.map((axis, place) => [axis.name, place]));  // they can be moved
    const set = fields.map((f) => [`dimensions[${places.get(f.name)}].constraintrange`, [value(f)]]);
    changed.clear();
    Plotly.restyle(coordinates, Object.fromEntries(set));
  };
  form.addEventListener("input", ({ target }) => {
    const field = target.closest("fieldset"), [from, to] = field.querySelectorAll("[type=range]"), axis = axisOf(field);
    const { value } = target, [low, high] = axis.range;
    target.at = low * (1 - value / 100) + high * value / 100;
    if (from && from.at > to.at) Object.assign(target === from ? to : from, { at: target.at, value });
    say(field, axis);
    changed.add(field);
    clearTimeout(timer);  // a key held down: drawing a thousand trials takes as long as several of its repetitions
    timer = setTimeout(() => select([...changed], wanted), 200);
  });
  form.addEventListener("submit", (event) => event.preventDefault());  // Enter
  form.querySelector("button").addEventListener("click", () => select([...form.querySelectorAll("fieldset")], () => null));
  coordinates.on("plotly_restyle", show);
  coordinates.on("plotly_afterplot", mark);
  mark();
  for (const axis of coordinates.data[0].dimensions) fill(form.elements[axis.name], axis);
}

// On a touch screen a finger scrolls, over charts too.
if (matchMedia("(pointer: coarse)").matches) {
  for (const chart of document.querySelectorAll(".js-plotly-plot")) Plotly.relayout(chart, { dragmode: false });
}

// Plotly knows no dark mode: backgrounds are transparent, the letters follow the page.
const dark = matchMedia("screen and (prefers-color-scheme: dark)");
const colour = () => {
  const ink = getComputedStyle(document.documentElement).getPropertyValue("--ink").trim();
  for (const chart of document.querySelectorAll(".js-plotly-plot")) Plotly.relayout(chart, { "font.color": ink });
};
dark.addEventListener("change", colour);
if (dark.matches) colour();
