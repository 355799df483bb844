// State, text, elements, colours, tooltip and highlighting: what every section of the page stands on.
const DATA = JSON.parse(document.getElementById("data").textContent);
const NS = "http://www.w3.org/2000/svg";
const SINGLE = DATA.methods.findIndex((m) => m.role === "baseline");
const TRAINED = DATA.methods.map((m, i) => i).filter((i) => DATA.methods[i].role === "method");
const INDEX = new Map(DATA.methods.map((m, i) => [m.name, i]));

const state = {
  lang: recall("lang") || ((navigator.language || "en").toLowerCase().startsWith("zh") ? "zh" : "en"),
  theme: recall("theme") || "auto",
  pinned: new Set(),
  hovered: null,
};

function recall(key) {
  try {
    return localStorage.getItem(`mtl_opt.${key}`);
  } catch {
    return null; // a page opened from disk may have no storage
  }
}

function remember(key, value) {
  try {
    localStorage.setItem(`mtl_opt.${key}`, value);
  } catch {
    // the choice then lasts until the page is closed
  }
}

/** Text in the chosen language; `{name}` is replaced. */
function t(key, values = {}) {
  const found = TEXTS[key];
  if (!found) throw new Error(`no text ${key}`);
  return found[state.lang === "zh" ? 1 : 0].replace(/\{(\w+)\}/g, (_, name) => String(values[name] ?? ""));
}

function build(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key === "value" || key === "checked" || key === "selected") element[key] = value;
    else element.setAttribute(key, value === true ? "" : value);
  }
  for (const child of children.flat(3)) {
    if (child !== null && child !== undefined && child !== false) element.append(child); // a text stays a text
  }
  return element;
}

const h = (tag, attributes, ...children) => build(document.createElement(tag), attributes, children);
const s = (tag, attributes, ...children) => build(document.createElementNS(NS, tag), attributes, children);

/** A number as people read it; a dash where there is none. */
function num(value, digits = 3) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (typeof value !== "number") return String(value);
  const size = Math.abs(value);
  if (size >= 1e5 || (digits > 2 && size !== 0 && size < 10 ** -digits)) return value.toExponential(1).replace("-", "−");
  return (Number.isInteger(value) && size >= 100 ? String(value) : value.toFixed(digits)).replace("-", "−");
}

const signed = (value, digits = 1) => (value > 0 ? "+" : "") + num(value, digits);
const percent = (value, digits = 1) => (typeof value === "number" ? `${signed(value, digits)} %` : "–");
const mean = (values) => {
  const numbers = values.filter((v) => typeof v === "number");
  return numbers.length ? numbers.reduce((a, b) => a + b, 0) / numbers.length : null;
};

// ---- colours: Okabe and Ito's, told apart by dashes and markers too --------------------------------------------
const DASHES = ["", "7 3", "2 3", "9 3 2 3"];
const MARKERS = ["circle", "square", "triangle", "diamond"];

function rankOf(index) {
  return index === SINGLE ? -1 : TRAINED.indexOf(index);
}

function colour(index) {
  const rank = rankOf(index);
  return rank < 0 ? "var(--single)" : `var(--c${rank % 8})`;
}

function dash(index) {
  const rank = rankOf(index);
  return rank < 0 ? "3 3" : DASHES[Math.floor(rank / 8) % DASHES.length];
}

function marker(index, x, y, size = 4.5) {
  const rank = rankOf(index);
  const common = { fill: rank < 0 ? "var(--card)" : colour(index), stroke: rank < 0 ? colour(index) : "var(--card)" };
  const kind = rank < 0 ? "circle" : MARKERS[Math.floor(rank / 8) % MARKERS.length];
  if (kind === "circle") return s("circle", { cx: x, cy: y, r: size, ...common, "stroke-width": rank < 0 ? 2 : 1 });
  if (kind === "square") {
    return s("rect", { x: x - size, y: y - size, width: 2 * size, height: 2 * size, ...common });
  }
  const up = `M${x},${y - size * 1.2}L${x + size * 1.1},${y + size}L${x - size * 1.1},${y + size}Z`;
  const lozenge = `M${x},${y - size * 1.3}L${x + size * 1.3},${y}L${x},${y + size * 1.3}L${x - size * 1.3},${y}Z`;
  return s("path", { d: kind === "triangle" ? up : lozenge, ...common });
}

/** Colour for −1 … 1: below zero vermilion (conflict, worse), above blue (agreement, better). */
function diverging(value, limit = 1) {
  if (typeof value !== "number") return "transparent";
  const strength = Math.min(1, Math.abs(value) / (limit || 1)) ** 0.85;
  return `color-mix(in srgb, var(${value < 0 ? "--bad" : "--good"}) ${Math.round(100 * strength)}%, var(--card))`;
}

function inkOn(value, limit = 1) {
  return typeof value === "number" && Math.abs(value) / (limit || 1) > 0.62 ? "var(--ink-on-strong)" : "var(--ink)";
}

// ---- tooltip ---------------------------------------------------------------------------------------------------
const tip = h("div", { id: "tip", role: "tooltip", hidden: true });

function showTip(event, lines) {
  tip.replaceChildren(...lines.map((line) => (line instanceof Node ? line : h("div", {}, line))));
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  const [x, y] = [event.clientX ?? 0, event.clientY ?? 0];
  tip.style.left = `${Math.max(6, x + box.width + 24 > innerWidth ? x - box.width - 14 : x + 14)}px`;
  tip.style.top = `${Math.max(6, Math.min(y + 14, innerHeight - box.height - 6))}px`;
}

function hideTip() {
  tip.hidden = true;
}

/** Attributes that give an element a tooltip; `lines` is called when it is shown. */
const tipped = (lines) => ({ onmousemove: (event) => showTip(event, lines()), onmouseleave: hideTip });

function methodLine(index, ...rest) {
  return h("div", { class: "tip-row" }, swatch(index), h("b", {}, DATA.methods[index].label), " ", ...rest);
}

// ---- one method highlighted everywhere -------------------------------------------------------------------------
const focusRule = h("style", { id: "focus" });

function drawFocus() {
  const chosen = state.hovered !== null ? [state.hovered] : [...state.pinned];
  const others = chosen.map((i) => `:not([data-m="${i}"])`).join("");
  focusRule.textContent = chosen.length
    ? `[data-m]${others}{opacity:.13}` + chosen.map((i) => `[data-m="${i}"] .curve{stroke-width:3}`).join("")
    : "";
  for (const chip of document.querySelectorAll(".chip")) {
    chip.setAttribute("aria-pressed", String(state.pinned.has(Number(chip.dataset.m))));
  }
}

function hover(index) {
  if (state.hovered === index) return;
  state.hovered = index;
  drawFocus();
}

function pin(index) {
  if (!state.pinned.delete(index)) state.pinned.add(index);
  drawFocus();
}

/** Attributes of whatever belongs to a method: hovering it dims all others on the page. */
const ofMethod = (index) => ({
  "data-m": index,
  onmouseenter: () => hover(index),
  onmouseleave: () => hover(null),
});

function swatch(index) {
  return s(
    "svg",
    { class: "swatch", viewBox: "0 0 26 12", "aria-hidden": "true" },
    s("line", { x1: 1, x2: 25, y1: 6, y2: 6, stroke: colour(index), "stroke-width": 2.5, "stroke-dasharray": dash(index) }),
    marker(index, 13, 6, 4),
  );
}

function chip(index) {
  return h(
    "button",
    {
      class: "chip", type: "button", ...ofMethod(index), onclick: () => pin(index), "aria-pressed": "false",
      onfocus: () => hover(index), onblur: () => hover(null),
    },
    swatch(index),
    DATA.methods[index].label,
  );
}

// ---- building blocks of sections -------------------------------------------------------------------------------
function segmented(label, options, chosen, choose) {
  return h(
    "div",
    { class: "segmented", role: "group", "aria-label": label },
    options.map(([value, text]) =>
      h("button", { type: "button", "aria-pressed": String(value === chosen), onclick: () => choose(value) }, text),
    ),
  );
}

function chooser(label, options, chosen, choose) {
  return h(
    "label",
    { class: "chooser" },
    h("span", {}, label),
    h(
      "select",
      { onchange: (event) => choose(event.target.value) },
      options.map(([value, text]) => h("option", { value, selected: String(value) === String(chosen) }, text)),
    ),
  );
}

/** A sentence in which what stands between backticks is code. */
const rich = (text) => text.split("`").map((part, i) => (i % 2 ? h("code", {}, part) : part));
const empty = (sentence) => h("p", { class: "empty" }, rich(sentence));
const card = (title, note, ...body) =>
  h("div", { class: "card" }, title && h("h3", {}, title), note && h("p", { class: "note" }, rich(note)), ...body);

/** Names in a sentence; no more than `most` of them. */
function listed(names, most = 5) {
  const shown = names.slice(0, most).join(state.lang === "zh" ? "、" : ", ");
  return names.length > most ? t("and_more", { names: shown, n: names.length - most }) : shown;
}
