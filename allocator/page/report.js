"use strict";
const data = JSON.parse(byId("data").textContent);
const state = { image: 0, target: 0, find: "" };
// a metric in a codec's training loss flatters it
const flattered = codec => (data.flattered[codec] || []).includes(data.metric);
const metric = data.metric + (data.codecs.some(flattered) ? data.mark : "") + direction(data.higher);
const got = image => image.chosen[state.target];

function drawSet() {
  const traces = [];
  if (data.frontier) traces.push({ x: data.frontier.bpp, y: data.frontier.value, mode: "lines", name: "best possible", line: { color: colours[0] } });
  const ways = [["allocated", t => ({ bpp: t.achieved, value: t.value }), "circle", 0], ["one level", t => t.single, "square", 1], ["equal rate", t => t.equal, "diamond", 2]];
  for (const [name, of, symbol, colour] of ways) {
    const found = data.targets.map(of).filter(Boolean);
    if (found.length) traces.push({ x: found.map(f => f.bpp), y: found.map(f => f.value), text: found.map(f => f.detail || ""), mode: "markers", name, marker: { color: colours[colour], size: 10, symbol } });
  }
  const most = 1.6 * Math.max(...data.targets.map(t => t.bpp));
  const least = Math.min(...(data.frontier ? data.frontier.bpp : [0]));
  const seen = traces.flatMap(t => t.y.filter((_, i) => t.x[i] <= most));
  const pad = 0.05 * (Math.max(...seen) - Math.min(...seen) || 1);
  draw("frontier", traces, "Rate and quality of the set", RATE, metric, {
    xrange: [0.9 * least, most], yrange: [Math.min(...seen) - pad, Math.max(...seen) + pad],
    shapes: data.targets.map((t, i) => ({ type: "line", x0: t.bpp, x1: t.bpp, yref: "paper", y0: 0, y1: 1, line: { color: colours[3], width: i === state.target ? 3 : 1, dash: "dot" } })),
  });
  const rates = data.codecs.map((codec, at) => ({
    type: "histogram", name: codec, x: data.images.map(got).filter(c => c.codec === codec).map(c => c.bpp),
    nbinsx: 24, marker: { color: style(at).color, pattern: { shape: style(at).fill } },
  })).filter(t => t.x.length);
  draw("rates", rates, "Rates that the allocation gave, target " + data.targets[state.target].bpp, RATE, "images", { barmode: "stack" });
}

function drawImage() {
  const image = data.images[state.image], chosen = got(image);
  byId("name").textContent = image.name;
  byId("numbers").textContent = `${chosen.codec} ${chosen.setting}, ${count(chosen.bytes)} bytes, ${chosen.bpp.toFixed(4)} bpp, ` +
    Object.entries(chosen.metrics).map(([key, value]) => `${key} ${value}${(data.flattered[chosen.codec] || []).includes(key) ? data.mark : ""}`).join(", ");
  const curves = [image.curves, image.refined].flatMap((levels, refined) => Object.entries(levels).map(([name, { bpp, value, setting }]) =>
    ({ at: data.codecs.indexOf(name), name: refined ? `${name}, refined` : name, bpp, value, text: setting, refined })));
  drawLevels("curve", curves, chosen, metric, "chosen");
  const has = Boolean(image.original);
  byId("pictures").hidden = !has;
  byId("hidden").hidden = has;
  if (has) {
    viewer.size(image.width, image.height);
    viewer.show(image.original, chosen.picture, chosen.heat, `${image.name} decoded from ${chosen.bytes} bytes`);
  }
  table.mark();
}

function show(index) { state.image = (index + data.images.length) % data.images.length; drawImage(); }

const number = (td, value) => { td.textContent = value.toFixed(4); };
const table = new SortedTable(byId("table"), [
  { name: "name", of: i => i.name, cell: (td, value, image) => makeButton(value, td, () => { show(data.images.indexOf(image)); byId("name").scrollIntoView({ behavior: still.matches ? "auto" : "smooth" }); }) },
  { name: "codec", of: i => got(i).codec }, { name: "level", of: i => got(i).setting },
  { name: "bytes", of: i => got(i).bytes, cell: (td, value) => { td.textContent = count(value); } },
  { name: "bpp", of: i => got(i).bpp, cell: number },
  { name: data.metric, of: i => got(i).value, cell: (td, value, image) => { number(td, value); if (flattered(got(image).codec)) td.append(data.mark); } },
], { key: image => image.name, current: () => data.images[state.image].name });
function drawTable() {
  const wanted = state.find.toLowerCase();
  const shown = table.draw(data.images.filter(i => table.columns.slice(0, 3).some(c => String(c.of(i)).toLowerCase().includes(wanted))));
  byId("count").textContent = `${shown} of ${data.images.length} images`;
}

for (const sentence of data.summary) make("p", sentence, byId("summary"));
if (Object.keys(data.flattered).length) make("p", data.footnote, byId("summary"));
data.targets.forEach((target, i) => {
  const label = document.createElement("label"), input = document.createElement("input");
  input.type = "radio"; input.name = "target"; input.checked = !i;
  input.addEventListener("change", () => { state.target = i; drawSet(); drawImage(); drawTable(); });
  label.append(input, `${target.bpp} bpp`); byId("targets").append(label);
});
const viewer = new Viewer(byId("pictures"), data.map);
byId("shown").textContent = data.pictures;
byId("before").addEventListener("click", () => show(state.image - 1));
byId("after").addEventListener("click", () => show(state.image + 1));
byId("find").addEventListener("input", e => { state.find = e.target.value; drawTable(); });
dark.addEventListener("change", () => { drawSet(); drawImage(); });
drawSet(); drawTable(); drawImage();
