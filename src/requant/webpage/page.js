"use strict";
// The page's behaviour: filters and order decide which runs are shown, `chosen` which one is looked at.

const RUNS = JSON.parse(document.getElementById("data").textContent);
const ALWAYS = ["model", "data", "clustering", "centroids"];
const SETTINGS = ["experiment", ...ALWAYS, "storage", "retrain", "unlabeled", "seed"];
const MEASURED = ["bytes", "size_reduction", "teacher_top1", "quantized_top1", "retrained_top1", "conventional_top1",
  "agreement", "n"];
const LABELS = { clustering: "method", centroids: "k", size_reduction: "size reduced", teacher_top1: "teacher",
  quantized_top1: "quantized", retrained_top1: "retrained", conventional_top1: "conventional", agreement: "agrees" };
// Okabe and Ito's colours, told apart by the colour-blind, in both modes; shapes for print in grey.
const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];
const SHAPES = ["circle", "square", "diamond", "triangle-up", "cross", "star"];

const state = { filters: {}, key: "bytes", rising: true, chosen: null };
const at = (id) => document.getElementById(id);
const unique = (values) => [...new Set(values)];
const label = (key) => LABELS[key] ?? key;

function compare(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b), undefined, { numeric: true });
}

function matching() {
  return RUNS.filter((run) => Object.entries(state.filters).every(([key, value]) => String(run.row[key]) === value));
}

// What is missing comes last, whichever way the column is sorted.
function sorted(runs) {
  const sign = state.rising ? 1 : -1;
  const value = (run) => run.row[state.key] ?? null;
  return [...runs].sort((a, b) => {
    if (value(a) === null || value(b) === null) return (value(a) === null) - (value(b) === null);
    return sign * compare(value(a), value(b));
  });
}

// The runs that no other beats: none has both fewer bytes and at least its accuracy.
function paretoFront(runs) {
  let best = -1;
  const order = [...runs].sort((a, b) => a.row.bytes - b.row.bytes || b.row.top1 - a.row.top1);
  return order.filter((run) => run.row.top1 > best && ((best = run.row.top1), true));
}

function cell(key, value) {
  if (value === null || value === undefined) return "";
  if (key.endsWith("top1") || key === "agreement" || key === "size_reduction") return `${(100 * value).toFixed(2)} %`;
  if (key.endsWith("kl")) return value.toFixed(4);
  return SETTINGS.includes(key) || typeof value !== "number" ? String(value) : value.toLocaleString("en");
}

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function drawFilters() {
  for (const key of SETTINGS) {
    const values = unique(RUNS.map((run) => run.row[key])).sort(compare).map(String);
    if (values.length < 2 && !ALWAYS.includes(key)) continue;
    const options = values.map((value) => element("option", { value, textContent: value }));
    const select = element("select", { name: key }, element("option", { value: "", textContent: "all" }), ...options);
    select.addEventListener("change", () => {
      if (select.selectedIndex === 0) delete state.filters[key];
      else state.filters[key] = select.value;
      refresh();
    });
    at("filters").append(element("label", {}, label(key), select));
  }
  const reset = element("button", { type: "reset", textContent: "Show all" });
  at("filters").append(reset);
  at("filters").addEventListener("reset", () => { state.filters = {}; refresh(); });
}

function columns() {
  const varied = SETTINGS.filter((key) => ALWAYS.includes(key) || unique(RUNS.map((run) => run.row[key])).length > 1);
  return [...varied, ...MEASURED].filter((key) => RUNS.some((run) => (run.row[key] ?? null) !== null));
}

function drawHead() {
  const cells = columns().map((key) => {
    const button = element("button", { type: "button", textContent: label(key) });
    button.addEventListener("click", () => {
      state.rising = state.key === key ? !state.rising : true;
      state.key = key;
      drawTable(matching());
    });
    const head = element("th", { scope: "col", className: MEASURED.includes(key) ? "number" : "" }, button);
    head.dataset.key = key;
    return head;
  });
  document.querySelector("#runs thead").replaceChildren(element("tr", {}, ...cells));
}

function drawTable(shown) {
  for (const head of document.querySelectorAll("#runs th")) {
    const here = head.dataset.key === state.key;
    head.ariaSort = here ? (state.rising ? "ascending" : "descending") : "none";
    head.firstChild.textContent = label(head.dataset.key) + (here ? (state.rising ? " ▲" : " ▼") : "");
  }
  const keys = columns();
  const rows = sorted(shown).map((run) => {
    const cells = keys.map((key) =>
      element("td", { className: MEASURED.includes(key) ? "number" : "", textContent: cell(key, run.row[key]) }));
    const row = element("tr", { tabIndex: 0 }, ...cells);
    row.dataset.run = run.id;
    row.ariaSelected = String(run === state.chosen);
    return row;
  });
  document.querySelector("#runs tbody").replaceChildren(...rows);
}

const group = (run) => `${run.row.model}, ${run.row.data}`;
const GROUPS = unique(RUNS.map(group)).sort(compare);
const KS = unique(RUNS.map((run) => run.row.centroids)).sort(compare);

// From light to dark along one scale, so that k can be read from the shade.
function shade(position) {
  const share = KS.length > 1 ? position / (KS.length - 1) : 0.5;
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  return `hsl(${200 + 60 * share} 75% ${dark ? 85 - 35 * share : 65 - 40 * share}%)`;
}

function layout(more) {
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const axis = { gridcolor: colour("--line"), linecolor: colour("--line"), zeroline: false, automargin: true };
  return {
    paper_bgcolor: "transparent", plot_bgcolor: "transparent", hovermode: "closest", dragmode: false,
    font: { color: colour("--ink"), family: getComputedStyle(document.body).fontFamily, size: 12 },
    margin: { l: 50, r: 10, t: 10, b: 40 }, legend: { orientation: "h", y: -0.3, yanchor: "top", maxheight: 1 },
    hoverlabel: { bgcolor: colour("--paper"), font: { color: colour("--ink") } },
    ...more, xaxis: { ...axis, ...more.xaxis }, yaxis: { ...axis, ...more.yaxis },
  };
}

function draw(id, traces, more) {
  return Plotly.react(id, traces, layout(more), { responsive: true, displaylogo: false, displayModeBar: false });
}

// Text that plotly would otherwise read as markup.
const plain = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

function hover(run) {
  const { clustering, centroids, retrain, seed, bytes, top1, n } = run.row;
  return plain(`${clustering}, k = ${centroids}, ${retrain}, seed ${seed}`)
    + `<br>${bytes.toLocaleString("en")} bytes, ${(100 * top1).toFixed(2)} % of ${n.toLocaleString("en")}`;
}

function drawFront(shown) {
  const sized = shown.filter((run) => typeof run.row.bytes === "number" && typeof run.row.top1 === "number");
  const traces = GROUPS.flatMap((name, place) => {
    const runs = sized.filter((run) => group(run) === name);
    if (!runs.length) return [];
    const [front, color] = [paretoFront(runs), COLOURS[place % COLOURS.length]];
    const points = (list) => ({ x: list.map((run) => run.row.bytes), y: list.map((run) => 100 * run.row.top1) });
    return [
      { ...points(front), mode: "lines", line: { color, shape: "hv", width: 1.5 }, showlegend: false,
        hoverinfo: "skip", meta: "front" },
      { ...points(runs), mode: "markers", name: plain(name), meta: "runs", hovertemplate: "%{text}<extra></extra>",
        text: runs.map(hover), customdata: runs.map((run) => run.id),
        marker: { color, symbol: SHAPES[place % SHAPES.length], size: runs.map((run) => run === state.chosen ? 14 : 8),
          opacity: 0.85, line: { width: runs.map((run) => run === state.chosen ? 2 : 0) } } },
    ];
  });
  return draw("front", traces, {
    showlegend: true, xaxis: { title: { text: "bytes on disk" }, type: "log", exponentformat: "SI", nticks: 6 },
    yaxis: { title: { text: "top-1 (%)" } },
  });
}

// The curves of all runs of one k in one trace, with gaps between: hundreds of traces would be slow.
function drawCurves(shown) {
  const traces = KS.flatMap((k, place) => {
    const runs = shown.filter((run) => run.row.centroids === k && run.curves.retrained?.epoch.length);
    if (!runs.length) return [];
    return [{
      x: runs.flatMap((run) => [...run.curves.retrained.epoch, null]),
      y: runs.flatMap((run) => [...run.curves.retrained.top1.map(percent), null]),
      customdata: runs.flatMap((run) => [...run.curves.retrained.epoch.map(() => run.id), null]),
      mode: "lines", name: `k = ${k}`, line: { color: shade(place), width: 1.2 },
      connectgaps: false, hovertemplate: "epoch %{x}: %{y:.2f} %<br>%{customdata}<extra></extra>",
    }];
  });
  return draw("curves", [...traces, ...chosenCurves()], {
    showlegend: true, xaxis: { title: { text: "epoch" }, rangemode: "tozero", tickformat: "d" },
    yaxis: { title: { text: "top-1 (%)" } },
  });
}

const percent = (share) => (share === null ? null : 100 * share);

function chosenCurves() {
  const curves = state.chosen?.curves ?? {};
  return Object.entries({ retrained: "solid", conventional: "dot" }).flatMap(([name, dash]) => curves[name] ? [{
    x: curves[name].epoch, y: curves[name].top1.map(percent), mode: "lines", name: `chosen run, ${name}`,
    line: { color: COLOURS[1], width: 3, dash }, hovertemplate: "epoch %{x}: %{y:.2f} %<extra></extra>",
  }] : []);
}

function drawLayers(run) {
  const { layer, kind, name, bytes, values, centroids } = run.tensors;
  const labels = layer.map((number, i) => number === null ? name[i] : `${number}`);
  const traces = unique(kind).map((one, place) => {
    const those = kind.flatMap((found, i) => (found === one ? [i] : []));
    return {
      type: "bar", name: plain(one), x: those.map((i) => labels[i]), y: those.map((i) => bytes[i]),
      marker: { color: COLOURS[place % COLOURS.length] }, hovertemplate: "%{text}<extra></extra>",
      text: those.map((i) => `${plain(name[i])}: ${bytes[i].toLocaleString("en")} bytes for `
        + `${values[i].toLocaleString("en")} values, k = ${centroids[i]}`), textposition: "none",
    };
  });
  const dense = run.parts.dense;
  if (dense) traces.push({ type: "bar", name: "not clustered", x: ["rest"], y: [dense], marker: { color: "#8a8f98" },
    hovertemplate: "all that is not clustered: %{y:,} bytes<extra></extra>" });
  return draw("layers", traces, {
    barmode: "stack", showlegend: true,
    xaxis: { title: { text: "layer" }, type: "category", categoryarray: [...unique(labels), "rest"] },
    yaxis: { title: { text: "bytes on disk" }, exponentformat: "SI" },
  });
}

function definitions(id, facts) {
  at(id).replaceChildren(...Object.entries(facts).map(([key, value]) => element("div", {},
    element("dt", { textContent: key }),
    element("dd", { textContent: typeof value === "object" ? JSON.stringify(value) : String(value) }))));
}

function drawRun() {
  const run = state.chosen;
  at("run").hidden = !run;
  if (!run) return;
  at("name").textContent = run.id;
  const students = ["teacher", "quantized", "retrained", "conventional"];
  const rows = students.filter((name) => typeof run.row[`${name}_top1`] === "number").map((name) => element("tr", {},
    element("th", { scope: "row", textContent: name }), ...["top1", "correct", "n", "agreement", "kl"].map((key) =>
      element("td", { className: "number", textContent: cell(key, run.row[`${name}_${key}`]) }))));
  const heads = ["", "top-1", "correct", "of", "agrees", "KL (nats)"].map((textContent) =>
    element("th", { scope: "col", className: textContent && "number", textContent }));
  at("figures").replaceChildren(element("table", {}, element("thead", {}, element("tr", {}, ...heads)),
    element("tbody", {}, ...rows)));
  definitions("settings", run.settings);
  definitions("made", run.made_with);
  drawLayers(run);
}

function choose(run, scroll) {
  state.chosen = run;
  history.replaceState(null, "", `#${encodeURIComponent(run.id)}`);
  refresh();
  if (scroll) at("run").scrollIntoView();
}

const find = (id) => RUNS.find((run) => run.id === id);

function listen() {
  const table = document.querySelector("#runs tbody");
  const open = (event) => {
    const row = event.target.closest("tr");
    if (row) choose(find(row.dataset.run), false);
  };
  table.addEventListener("click", open);
  table.addEventListener("keydown", (event) => { if (event.key === "Enter") open(event); });
  for (const id of ["front", "curves"]) {
    at(id).on("plotly_click", ({ points }) => {
      const run = find(points[0].customdata);
      if (run) choose(run, true);
    });
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", refresh);
  addEventListener("hashchange", () => {
    const run = find(decodeURIComponent(location.hash.slice(1)));
    if (run) choose(run, true);
  });
}

function refresh() {
  const shown = matching();
  at("count").textContent = `${shown.length} of ${RUNS.length} runs`;
  drawTable(shown);
  drawFront(shown);
  drawCurves(shown);
  drawRun();
}

// Looked at first: the run that the address names, else the most accurate.
function first() {
  const best = RUNS.reduce((a, b) => ((b.row.top1 ?? -1) > (a.row.top1 ?? -1) ? b : a));
  return find(decodeURIComponent(location.hash.slice(1))) ?? best;
}

state.chosen = first();
drawFilters();
drawHead();
refresh();
listen();
