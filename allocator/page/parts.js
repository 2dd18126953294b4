"use strict";
// What the report and the explorer share: charts, the picture viewer, a table that sorts.

const byId = id => document.getElementById(id);
const make = (tag, text, parent) => { const e = document.createElement(tag); e.textContent = text; parent.append(e); return e; };
const makeButton = (text, parent, act) => { const e = make("button", text, parent); e.type = "button"; e.addEventListener("click", act); return e; };
const count = number => number.toLocaleString("en");
// Okabe and Ito's colours, which every kind of sight can distinguish, and their marks
const colours = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999"];
const marks = ["circle", "square", "diamond", "cross", "triangle-up", "x", "star"];
const dashes = ["solid", "dash", "dot", "dashdot", "longdash"];
const fills = ["", "/", ".", "x", "-", "|", "+"];
const style = at => ({ color: colours[at % 7], symbol: marks[at % 7], dash: dashes[at % 5], fill: fills[at % 7] });
const dark = matchMedia("(prefers-color-scheme: dark)");
const still = matchMedia("(prefers-reduced-motion: reduce)");
const RATE = "bits per pixel";
const direction = higher => higher ? " (higher is better)" : " (lower is better)";

function draw(id, traces, title, x, y, more) {
  const css = getComputedStyle(document.documentElement);
  const axis = { gridcolor: css.getPropertyValue("--line"), zeroline: false }, { xrange, yrange, ...layout } = more;
  const place = byId(id);
  place.setAttribute("role", "img");
  place.setAttribute("aria-label", `Chart: ${title}`);
  return Plotly.react(place, traces, {
    title: { text: title, font: { size: 15 }, x: 0, xanchor: "left" }, margin: { l: 55, r: 10, t: 40, b: 45 },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: css.getPropertyValue("--text") },
    xaxis: { title: { text: x }, range: xrange, ...axis }, yaxis: { title: { text: y }, range: yrange, ...axis },
    legend: { orientation: "h", y: place.clientHeight < 340 ? -0.4 : -0.25 }, ...layout,
  }, { responsive: true, displaylogo: false, displayModeBar: false });
}

// An image's levels by codec, and the one it got. curves: [{ at: the codec's number, name, bpp, value, text, refined }]
function drawLevels(id, curves, chosen, metric, marked) {
  const traces = curves.map(one => {
    const { color, symbol, dash } = style(one.at);
    const how = one.refined ? { mode: "markers", marker: { color, symbol: `${symbol}-open`, size: 9 } } :
      { mode: "lines+markers", line: { color, dash }, marker: { color, symbol, size: 6 } };
    return { x: one.bpp, y: one.value, text: one.text, name: one.name, ...how };
  });
  traces.push({ x: [chosen.bpp], y: [chosen.value], name: marked, mode: "markers", marker: { size: 16, symbol: "circle-open", color: colours[1], line: { width: 3 } } });
  return draw(id, traces, "Its levels, and the chosen one", RATE, metric, {});
}

// The original and what became of it, one over the other: divider, zoom, flicker, and where they differ.
class Viewer {
  constructor(place, map, tallest = 80) { // per cent of the window's height
    place.innerHTML = `
      <div class="viewer" id="viewer" role="group" tabindex="0" aria-label="Original on the left, decoded on the right">
        <div class="layer"><img id="original" alt="original"></div>
        <div class="layer" id="right"><img id="decoded" alt="decoded"><img id="heat" alt="" hidden></div>
        <div class="edge"></div><span class="side first">original</span><span class="side last">decoded</span>
      </div>
      <input type="range" class="divider" id="slide" min="0" max="100" step="0.5" value="50" aria-label="How much of the original is shown">
      <div class="bar">
        <label>zoom <input type="range" id="zoom" min="1" max="8" step="0.25" value="1"></label>
        <button type="button" id="whole">whole picture</button>
        <label><input type="checkbox" id="flicker"> flicker</label>
        <label><input type="checkbox" id="warm"> <span>where they differ (<span id="map"></span>)</span></label>
        <span class="faint">Drag to move, wheel to zoom; arrow keys move the picture while it has the focus.</span>
      </div>`;
    this.tallest = tallest; this.box = byId("viewer"); this.zoom = 1; this.x = this.y = 0; this.timer = null;
    byId("map").textContent = map;
    byId("slide").addEventListener("input", () => this.slide());
    byId("zoom").addEventListener("input", e => { const box = this.box.getBoundingClientRect(); this.zoomTo(+e.target.value, box.width / 2, box.height / 2); });
    byId("whole").addEventListener("click", () => this.zoomTo(1, 0, 0));
    byId("warm").addEventListener("change", e => this.warm(e.target.checked));
    byId("flicker").addEventListener("change", e => this.flicker(e.target.checked));
    this.box.addEventListener("wheel", e => { e.preventDefault(); const box = this.box.getBoundingClientRect(); this.zoomTo(this.zoom * Math.exp(-e.deltaY / 300), e.clientX - box.left, e.clientY - box.top); }, { passive: false });
    this.box.addEventListener("pointerdown", e => this.box.setPointerCapture(e.pointerId));
    this.box.addEventListener("pointermove", e => { if (e.buttons) this.move(e.movementX, e.movementY); });
    this.box.addEventListener("keydown", e => {
      const step = { ArrowLeft: [40, 0], ArrowRight: [-40, 0], ArrowUp: [0, 40], ArrowDown: [0, -40] }[e.key];
      if (step) { this.move(...step); e.preventDefault(); }
    });
    addEventListener("resize", () => this.draw());
    this.slide();
  }
  size(width, height) {
    this.box.style.aspectRatio = `${width} / ${height}`;
    this.box.style.maxWidth = `min(100%, ${this.tallest * width / height}vh)`;
  }
  // addresses; empty where there is none yet
  show(original, decoded, heat, alt) {
    for (const [id, src] of [["original", original], ["decoded", decoded], ["heat", heat]]) {
      if (src) byId(id).src = src; else byId(id).removeAttribute("src");
    }
    byId("decoded").alt = alt;
  }
  move(x, y) { this.x += x; this.y += y; this.draw(); }
  zoomTo(zoom, x, y) {
    const next = Math.min(8, Math.max(1, zoom)), ratio = next / this.zoom;
    this.x = x - (x - this.x) * ratio; this.y = y - (y - this.y) * ratio; this.zoom = next; this.draw();
  }
  draw() {
    const box = this.box.getBoundingClientRect(), most = this.zoom - 1;
    this.x = Math.min(0, Math.max(-most * box.width, this.x));
    this.y = Math.min(0, Math.max(-most * box.height, this.y));
    for (const id of ["original", "decoded", "heat"]) byId(id).style.transform = `translate(${this.x}px, ${this.y}px) scale(${this.zoom})`;
    this.box.classList.toggle("near", this.zoom >= 4);
    byId("zoom").value = this.zoom;
  }
  slide() {
    const value = byId("slide").value;
    byId("right").style.clipPath = `inset(0 0 0 ${value}%)`;
    this.box.querySelector(".edge").style.left = `calc(${value}% - 1px)`;
  }
  warm(on) { byId("warm").checked = on; byId("heat").hidden = !on; }
  // twice a second, fewer times than what may harm
  flicker(on) {
    clearInterval(this.timer);
    byId("flicker").checked = on;
    this.box.classList.toggle("flickers", on);
    let shown = false;
    const turn = () => { shown = !shown; byId("right").style.visibility = shown ? "visible" : "hidden"; };
    if (on) { byId("right").style.clipPath = "none"; turn(); this.timer = setInterval(turn, 500); }
    else { byId("right").style.visibility = "visible"; this.slide(); }
  }
}

// A table whose headings sort it. columns: [{ name, of: item => value, cell: (td, value, item) => {} }]
class SortedTable {
  constructor(table, columns, { sort, down = false, key, current, more } = {}) {
    this.table = table; this.columns = columns; this.sort = sort || columns[0].name; this.down = down;
    this.key = key; this.current = current; this.more = more; this.items = [];
    this.head = table.createTHead().insertRow(); this.body = table.createTBody();
  }
  by(sort, down) { this.sort = sort; this.down = down; this.draw(this.items); }
  draw(items) {
    this.items = items;
    this.head.replaceChildren();
    for (const { name } of this.columns) {
      const th = document.createElement("th"), sorted = this.sort === name;
      this.head.append(th); th.scope = "col";
      th.setAttribute("aria-sort", !sorted ? "none" : this.down ? "descending" : "ascending");
      makeButton(name + (!sorted ? "" : this.down ? " ▼" : " ▲"), th, () => {
        this.by(name, sorted && !this.down);
        this.head.querySelectorAll("button")[this.columns.findIndex(c => c.name === name)].focus();
      });
    }
    const of = (this.columns.find(c => c.name === this.sort) || this.columns[0]).of, sign = this.down ? -1 : 1;
    const compare = (a, b) => {
      const x = of(a), y = of(b);
      if (x === null || y === null) return (x === null) - (y === null); // what isn't there comes last
      return sign * (typeof x === "string" ? x.localeCompare(y, "en", { numeric: true }) : x - y);
    };
    const sorted = [...items].sort(compare), shown = this.more ? sorted.slice(0, this.more()) : sorted;
    this.body.replaceChildren(...shown.map(item => {
      const row = document.createElement("tr");
      row.dataset.key = this.key(item);
      for (const { of, cell } of this.columns) {
        const td = row.insertCell(), value = of(item);
        if (cell) cell(td, value, item); else td.textContent = value === null ? "" : value;
      }
      return row;
    }));
    this.mark();
    return shown.length;
  }
  mark() { for (const row of this.body.rows) row.setAttribute("aria-current", row.dataset.key === String(this.current())); }
}
