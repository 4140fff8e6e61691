"use strict";
document.documentElement.classList.add("js");

// One tree with its tools and its panel.
function tree(bench) {
const prefix = bench.dataset.prefix;
const alone = prefix === "";
const part = (selector) => bench.querySelector(selector);
const stage = part(".stage");
const svg = stage.querySelector("svg");
const panel = part(".panel");
const words = (node) => document.getElementById(`${prefix}d${node.id}`);
const tool = (name) => part(`[data-do="${name}"]`);
const say = JSON.parse(stage.dataset.words);
const fill = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
const rollouts = stage.dataset.rollouts ? stage.dataset.rollouts.split(",").map(Number) : [];
const low = Number(stage.dataset.low), high = Number(stage.dataset.high);
const SMALLEST = 4, GROWTH = 7, SHADES = 5, BAND = 44, MOST_ZOOM = 3, LEAST_READABLE = 0.8;

// The tree, as it lies in the drawing. A parent comes before its children.
const nodes = new Map();
for (const g of svg.querySelectorAll(".node")) {
  const d = g.dataset, id = Number(d.id);
  const node = {
    id, g, mark: g.querySelector(".mark"), title: g.querySelector("title"), children: [], folded: false,
    parent: d.parent === "" ? null : nodes.get(Number(d.parent)), x: Number(d.x), y: Number(d.y), top: Number(d.y),
    radius: Number(d.r), visits: Number(d.visits), sum: Number(d.sum), value: Number(d.value), n: 0, w: 0,
    edge: svg.querySelector(`.edge[data-to="${id}"]`),
  };
  node.full = node.title.textContent;
  node.label = g.querySelector(".label") ? g.querySelector(".label").textContent : node.full;
  node.level = node.parent ? node.parent.level + 1 : 1;
  if (node.parent) node.parent.children.push(node);
  nodes.set(id, node);
}
const all = [...nodes.values()];
const root = all[0];
const most = root.visits;
let shown = rollouts.length, chosen = null, timer = null;

// Replay: visits and values as they were after `shown` rollouts.
function count() {
  const whole = shown === rollouts.length;
  for (const node of all) {
    node.n = whole ? node.visits : 0;
    node.w = whole ? node.sum : 0;
    node.now = false;
  }
  if (!whole) {
    for (const end of rollouts.slice(0, shown)) {
      for (let node = nodes.get(end); node; node = node.parent) { node.n += 1; node.w += nodes.get(end).value; }
    }
  }
  const last = !whole || timer ? nodes.get(rollouts[shown - 1]) : null;
  for (let node = last; node; node = node.parent) node.now = true;
}

function paint() {
  const whole = shown === rollouts.length;
  for (const node of all) {
    const mean = node.n ? node.w / node.n : 0;
    const share = high > low ? (mean - low) / (high - low) : 0.5;
    const shade = Math.min(SHADES - 1, Math.max(0, Math.floor(share * SHADES + 1e-12)));
    const radius = node.n ? SMALLEST + GROWTH * Math.sqrt(node.n / most) : 2.5;
    for (let i = 0; i < SHADES; i++) node.g.classList.toggle(`v${i}`, node.n > 0 && i === shade);
    node.mark.style.transform = `scale(${(radius / node.radius).toFixed(3)})`;
    for (const shape of [node.g, node.edge]) {
      if (!shape) continue;
      shape.classList.toggle("later", node.n < 1 && node.visits > 0);
      shape.classList.toggle("now", node.now);
    }
    const head = node.full.split("; ")[0];
    const then = node.n ? fill(say.then, { n: node.n, q: mean.toFixed(2) }) : say.not_yet;
    node.title.textContent = whole || !node.visits ? node.full : `${head}; ${then}`;
  }
  figures();
}

// UCT as in search.md: W/N + c * sqrt(ln N_parent / N).
function uct(node) {
  const bonus = Number(stage.dataset.c) * Math.sqrt(Math.log(Math.max(node.parent.n, 1)) / node.n);
  const mean = node.w / node.n;
  return `${(mean + bonus).toFixed(3)} = ${mean.toFixed(3)} + ${bonus.toFixed(3)}`;
}

function figures() {
  if (!chosen) return;
  const { n, w } = chosen;
  const values = {
    visits: String(n), sum: w.toFixed(3), mean: n ? (w / n).toFixed(3) : "–", uct: n && chosen.parent ? uct(chosen) : "–",
  };
  for (const cell of words(chosen).querySelectorAll("[data-live]")) cell.textContent = values[cell.dataset.live];
}

function caption() {
  const text = part("[data-is=caption]"), slider = tool("rollout");
  if (!text) return;
  const n = rollouts.length, end = nodes.get(rollouts[shown - 1]);
  text.textContent = shown === 0 ? fill(say.before, { n })
    : shown === n && !timer ? fill(say.after, { n })
    : fill(say.rollout, { k: shown, n, label: end.label, value: end.value.toFixed(2) });
  slider.value = shown;
  slider.setAttribute("aria-valuetext", text.textContent);
}

function go(k) {
  shown = Math.min(rollouts.length, Math.max(0, k));
  count();
  paint();
  caption();
}

function play(on) {
  clearInterval(timer);
  timer = on ? setInterval(() => (shown < rollouts.length ? go(shown + 1) : play(false)), 900) : null;
  tool("play").textContent = on ? say.pause : say.play;
  go(on && shown === rollouts.length ? 0 : shown);
}

// Folding: hide what lies beyond, then close up the empty bands. Rows never come closer than BAND where a band is
// closed, so nothing that did not overlap before does afterwards.
const untried = tool("untried");
function arrange() {
  const seen = [];
  for (const node of all) {
    const above = node.parent;
    node.seen = !above || (above.seen && !above.folded && (node.visits > 0 || !untried || untried.checked));
    node.g.style.display = node.seen ? "" : "none";
    if (node.edge) node.edge.style.display = node.seen ? "" : "none";
    if (node.seen) seen.push(node);
  }
  let before = null, y = 0;
  for (const node of [...seen].sort((a, b) => a.top - b.top)) {
    y = before === null ? node.top : y + Math.min(node.top - before, BAND);
    before = node.top;
    node.y = y;
    node.g.setAttribute("transform", `translate(0 ${(y - node.top).toFixed(1)})`);
  }
  for (const node of seen) {
    if (node.edge) {
      const a = node.parent, middle = (a.x + node.x) / 2;
      node.edge.setAttribute("d", `M${a.x},${a.y} C${middle},${a.y} ${middle},${node.y} ${node.x},${node.y}`);
    }
    if (node.children.length) node.g.setAttribute("aria-expanded", String(!node.folded));
    note(node);
  }
}

function note(node) {
  let text = node.g.querySelector(".count");
  if (!node.folded) { if (text) text.remove(); return; }
  if (!text) {
    text = document.createElementNS(svg.namespaceURI, "text");
    text.setAttribute("class", "count");
    text.setAttribute("x", node.x + node.radius + 6);
    text.setAttribute("y", node.top + 4);
    node.g.append(text);
  }
  text.textContent = fill(say.beyond, { n: below(node) });
}

const below = (node) => node.children.reduce((sum, child) => sum + 1 + below(child), 0);

function fold(node) {
  if (!node || !node.children.length) return;
  node.folded = !node.folded;
  arrange();
  foldButton();
  show(node);
}

function foldButton() {
  const button = tool("fold");
  button.hidden = !chosen || !chosen.children.length;
  if (chosen) button.textContent = chosen.folded ? say.unfold : say.fold;
}

// Choosing a turn fills the panel.
function choose(node, move) {
  if (!node.seen) reveal(node);
  if (chosen) {
    words(chosen).hidden = true;
    chosen.g.classList.remove("chosen");
    chosen.g.removeAttribute("aria-selected");
  }
  chosen = node;
  part(".hint").hidden = true;
  words(node).hidden = false;
  node.g.classList.add("chosen");
  node.g.setAttribute("aria-selected", "true");
  panel.scrollTop = 0;
  figures();
  foldButton();
  step(node, false);
  if (move) panel.focus();
  else if (alone && panel.getBoundingClientRect().top > 0.8 * innerHeight) stage.scrollIntoView(); // a narrow screen
}

function reveal(node) {
  if (untried && !node.visits) untried.checked = true;
  for (let above = node.parent; above; above = above.parent) above.folded = false;
  arrange();
}

// Keyboard: one node of the tree is in the order of tabbing, the arrows move it.
let current = root;
function step(node, focus) {
  if (!node) return;
  current.g.tabIndex = -1;
  current = node;
  current.g.tabIndex = 0;
  if (focus) current.g.focus({ preventScroll: true });
  show(node);
}

function beside(node, way) {
  const column = all.filter((other) => other.seen && other.level === node.level).sort((a, b) => a.y - b.y);
  return column[column.indexOf(node) + way];
}

function inward(node) {
  const open = node.folded ? [] : node.children.filter((child) => child.seen);
  return open.reduce((best, child) => (!best || child.visits > best.visits ? child : best), null);
}

stage.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const best = all.filter((node) => node.seen && node.g.classList.contains("best"));
  const moves = {
    ArrowRight: () => step(inward(current), true),
    ArrowLeft: () => step(current.parent, true),
    ArrowUp: () => step(beside(current, -1), true),
    ArrowDown: () => step(beside(current, 1), true),
    Home: () => step(root, true),
    End: () => step(best[best.length - 1], true),
    Enter: () => choose(current, true),
    " ": () => fold(current),
    "+": () => zoom(1.25), "-": () => zoom(0.8), "0": () => fit(false),
  };
  if (moves[event.key]) { event.preventDefault(); moves[event.key](); }
});
panel.addEventListener("keydown", (event) => { if (event.key === "Escape") step(current, true); });

// Zoom and pan: the part of the drawing that shows, in its own units.
const view = { x: 0, y: 0, scale: 1 };
let printing = false;
function look() {
  if (printing) { svg.setAttribute("viewBox", box()); return; }
  const w = stage.clientWidth / view.scale, h = stage.clientHeight / view.scale;
  svg.setAttribute("viewBox", `${view.x} ${view.y} ${w} ${h}`);
}

function extent() {
  const ys = all.filter((node) => node.seen).map((node) => node.y);
  const right = Math.max(...all.filter((node) => node.seen).map((node) => node.x)) + 150;
  return { top: Math.min(...ys) - 30, bottom: Math.max(...ys) + 30, right };
}

// The whole tree; at the first look no smaller than can be read, with the start in the middle of the left edge.
function fit(readable) {
  const { top, bottom, right } = extent();
  const whole = Math.min(stage.clientWidth / right, stage.clientHeight / (bottom - top), 1.4);
  view.scale = readable ? Math.max(whole, LEAST_READABLE) : whole;
  const h = stage.clientHeight / view.scale;
  view.x = Math.min(0, (right - stage.clientWidth / view.scale) / 2);
  view.y = view.scale > whole && bottom - top > h ? root.y - h / 2 : (top + bottom - h) / 2;
  look();
}

function zoom(factor, px = stage.clientWidth / 2, py = stage.clientHeight / 2) {
  const scale = Math.min(MOST_ZOOM, Math.max(0.1, view.scale * factor));
  view.x += px / view.scale - px / scale;
  view.y += py / view.scale - py / scale;
  view.scale = scale;
  look();
}

function pan(dx, dy) {
  view.x -= dx / view.scale;
  view.y -= dy / view.scale;
  look();
}

// Moves the drawing just so far that a node and its label are inside.
function show(node) {
  const w = stage.clientWidth / view.scale, h = stage.clientHeight / view.scale;
  view.x = Math.min(Math.max(view.x, node.x + 130 - w), node.x - 26);
  view.y = Math.min(Math.max(view.y, node.y + 40 - h), node.y - 40);
  look();
}

const fingers = new Map();
let moved = 0;
stage.addEventListener("pointerdown", (event) => {
  fingers.set(event.pointerId, event);
  if (fingers.size === 1) moved = 0;
});
window.addEventListener("pointermove", (event) => {
  const last = fingers.get(event.pointerId);
  if (!last) return;
  const before = spread();
  fingers.set(event.pointerId, event);
  const dx = event.clientX - last.clientX, dy = event.clientY - last.clientY;
  moved += Math.abs(dx) + Math.abs(dy);
  if (moved > 6) stage.classList.add("dragged");
  pan(dx / fingers.size, dy / fingers.size);
  const after = spread();
  if (before && after) zoom(after.far / before.far, after.x, after.y);
});
for (const name of ["pointerup", "pointercancel"]) {
  window.addEventListener(name, (event) => { fingers.delete(event.pointerId); stage.classList.remove("dragged"); });
}

function spread() {
  if (fingers.size !== 2) return null;
  const [a, b] = [...fingers.values()], box = stage.getBoundingClientRect();
  const far = Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY) || 1;
  return { far, x: (a.clientX + b.clientX) / 2 - box.left, y: (a.clientY + b.clientY) / 2 - box.top };
}

const hit = (event) => {
  const g = event.target.closest && event.target.closest(".node");
  return g ? nodes.get(Number(g.dataset.id)) : null;
};
stage.addEventListener("click", (event) => { if (moved <= 6 && hit(event)) choose(hit(event), false); });
stage.addEventListener("dblclick", (event) => fold(hit(event)));
stage.addEventListener("wheel", (event) => {
  const zooming = event.ctrlKey || event.metaKey;
  if (!zooming && !alone) return; // among other things, the wheel moves the page
  event.preventDefault();
  const box = stage.getBoundingClientRect();
  if (zooming) {
    zoom(Math.exp(-event.deltaY / 300), event.clientX - box.left, event.clientY - box.top);
  } else {
    pan(-event.deltaX, -event.deltaY);
  }
}, { passive: false });

tool("zoom-in").addEventListener("click", () => zoom(1.25));
tool("zoom-out").addEventListener("click", () => zoom(0.8));
tool("fit").addEventListener("click", () => fit(false));
tool("fold").addEventListener("click", () => fold(chosen));
if (untried) untried.addEventListener("change", () => { arrange(); fit(true); });
if (rollouts.length) {
  tool("play").addEventListener("click", () => play(!timer));
  tool("rollout").addEventListener("input", (event) => { if (timer) play(false); go(Number(event.target.value)); });
}

// `#n12.3`: node 12 after rollout 3; `#d12`, which leads to its words without a script too. On the page of a case the
// prefix of the step goes before.
function address() {
  const found = /^[nd](\d+)(?:\.(\d+))?$/.exec(location.hash.slice(1 + prefix.length));
  if (!found || !location.hash.startsWith(`#${prefix}`)) return;
  if (found[2] && rollouts.length) go(Number(found[2]));
  const node = nodes.get(Number(found[1]));
  if (!node) return;
  choose(node, false);
  if (!alone) bench.scrollIntoView();
}

function begin() {
  for (const hidden of bench.querySelectorAll(".tools, .replay, .keys, .hint")) hidden.hidden = false;
  for (const article of panel.querySelectorAll("article")) article.hidden = true;
  for (const node of all) {
    node.g.setAttribute("aria-level", String(node.level));
    const siblings = node.parent ? node.parent.children : [node];
    node.g.setAttribute("aria-setsize", String(siblings.length));
    node.g.setAttribute("aria-posinset", String(siblings.indexOf(node) + 1));
  }
  root.g.tabIndex = 0;
  arrange();
  go(rollouts.length);
  fit(true);
  address();
}
begin();
window.addEventListener("resize", () => look());
window.addEventListener("hashchange", address);
window.addEventListener("beforeprint", () => { printing = true; look(); });
window.addEventListener("afterprint", () => { printing = false; look(); });

function box() {
  const { top, bottom, right } = extent();
  return `0 ${top} ${right} ${bottom - top}`;
}
}

for (const bench of document.querySelectorAll(".bench")) tree(bench);
