// The chosen pair over time, the map of the layers, and the other numbers of the diagnosis over the steps.
const scaled = (values) => values.map((v) => (v === null ? null : v / 100));

/** A rule at the step of the slider. */
function stepRule(parts, run, onStep) {
  const rule = s("line", { class: "now", y1: parts.top, y2: parts.height - parts.bottom });
  parts.svg.append(rule);
  onStep(() => {
    rule.setAttribute("x1", parts.sx(run.steps[diagnosis.at]));
    rule.setAttribute("x2", parts.sx(run.steps[diagnosis.at]));
  });
}

function pairTimeline(run, onStep, pick) {
  const p = diagnosis.pair;
  const raw = scaled(run.cosines[p]);
  const parts = frame({
    width: innerWidth < 640 ? 400 : 900, height: 240, top: 16, label: t("pair_over_time"),
    x: { range: extent(run.steps), label: t("step") }, y: { range: [-1.02, 1.02], zero: 0, ticks: [-1, -0.5, 0, 0.5, 1] },
  });
  const { svg, sx, sy } = parts;
  const corrected = run.corrected && { value: scaled(run.corrected.cosines[p]), low: scaled(run.corrected.low[p]), high: scaled(run.corrected.high[p]) };
  if (corrected) {
    svg.append(s("path", { d: area(run.steps, corrected.low, corrected.high, sx, sy), fill: "var(--accent)", opacity: 0.16 }));
    svg.append(s("path", { d: path(run.steps, corrected.value, sx, sy), fill: "none", stroke: "var(--accent)", "stroke-width": 2.4 }));
    run.steps.forEach((step, k) => typeof corrected.value[k] === "number" && svg.append(s("circle", { cx: sx(step), cy: sy(corrected.value[k]), r: 2.4, fill: "var(--accent)" })));
  }
  svg.append(s("path", { d: path(run.steps, raw, sx, sy), fill: "none", stroke: "var(--muted)", "stroke-width": 1.4, "stroke-dasharray": "4 3" }));
  run.steps.forEach((step, k) => typeof raw[k] === "number" && svg.append(s("circle", { cx: sx(step), cy: sy(raw[k]), r: 1.8, fill: "var(--muted)" })));
  stepRule(parts, run, onStep);
  crosshair(parts, run.steps, (x) => {
    const k = run.steps.indexOf(x);
    return [
      h("div", { class: "tip-head" }, t("step_n", { n: x })),
      `${t("raw")}: ${num(raw[k], 2)}`,
      corrected && `${t("corrected")}: ${num(corrected.value[k], 2)} (${num(corrected.low[k], 2)} … ${num(corrected.high[k], 2)})`,
      corrected && wordOf(run.corrected.verdict[p][k]),
    ].filter(Boolean);
  });
  const legend = h("p", { class: "legend" }, h("span", {}, h("i", { class: "key line dashed" }), t("raw")), corrected && h("span", {}, h("i", { class: "key line" }), t("corrected_interval")));
  return h("div", {}, pairPicker(run, pick), svg, legend);
}

function pairPicker(run, pick) {
  const pairs = run.cosines.map((_, p) => [p, pairName(run, p)]);
  if (pairs.length < 2) return h("p", { class: "note strong" }, pairName(run, 0));
  return h("div", { class: "controls" }, chooser(t("pair"), pairs, diagnosis.pair, (p) => pick(Number(p))));
}

/** Layers × steps: cosine of the chosen pair in every layer. */
function layerMap(run, onStep) {
  if (!run.layers) return empty(t("no_layers"));
  const { names } = run.layers;
  const grid = run.layers.cosines[diagnosis.pair];
  const row = names.length > 40 ? 9 : 17;
  const [left, top, width] = innerWidth < 640 ? [110, 6, 400] : [240, 6, 900];
  const cell = (width - left - 12) / run.steps.length;
  const height = names.length * row + 34;
  const svg = s("svg", { viewBox: `0 0 ${width} ${height}`, class: "chart", role: "img", "aria-label": t("layers") });
  names.forEach((name, l) => {
    if (row > 10 || l % 2 === 0) svg.append(s("text", { x: left - 8, y: top + row * (l + 0.5) + 4, class: "tick end" }, tail(name, left < 200 ? 16 : 38), s("title", {}, name)));
    grid[l].forEach((v, k) => {
      svg.append(s("rect", { x: (left + k * cell).toFixed(2), y: top + l * row, width: Math.max(0.5, cell - (cell > 6 ? 1 : 0)).toFixed(2), height: row - 1, style: `fill:${v === null ? "transparent" : diverging(v / 100)}`, class: v === null ? "gap" : null }));
    });
  });
  const every = Math.max(1, Math.ceil(run.steps.length / 10));
  run.steps.forEach((step, k) => k % every === 0 && svg.append(s("text", { x: left + (k + 0.5) * cell, y: height - 14, class: "tick middle" }, String(step))));
  const now = s("rect", { class: "now-column", y: top - 2, width: cell, height: names.length * row + 3 });
  svg.append(now);
  onStep(() => now.setAttribute("x", left + diagnosis.at * cell));
  svg.append(s("rect", {
    x: left, y: top, width: width - left - 12, height: names.length * row, fill: "transparent",
    onmousemove: (event) => {
      const box = svg.getBoundingClientRect();
      const k = Math.min(run.steps.length - 1, Math.max(0, Math.floor((((event.clientX - box.left) / box.width) * width - left) / cell)));
      const l = Math.min(names.length - 1, Math.max(0, Math.floor((((event.clientY - box.top) / box.height) * height - top) / row)));
      showTip(event, [h("b", {}, names[l]), t("step_n", { n: run.steps[k] }), `${pairName(run, diagnosis.pair)}: ${grid[l][k] === null ? "–" : num(grid[l][k] / 100, 2)}`]);
    },
    onmouseleave: hideTip,
  }));
  return h("div", {}, h("p", { class: "note strong" }, pairName(run, diagnosis.pair)), h("div", { class: "scroll tall" }, svg), scaleLegend());
}

const tail = (text, most) => (text.length > most ? `…${text.slice(1 - most)}` : text);
const scaleLegend = () => h("p", { class: "legend" }, "−1", h("i", { class: "ramp" }), "+1", h("span", { class: "gapped" }, t("ramp_note")));

/** Conflict rate, condition number, shares of the update and signal-to-noise over the steps, where measured. */
function strips(run) {
  const charts = [];
  const columns = run.shares || run.corrected || run.condition_number.some((v) => v !== null) ? 2 : 1;
  const known = (values) => values && values.some((v) => v !== null);
  if (known(run.conflict_rate)) charts.push(strip(run, columns, t("conflict_rate"), [[null, run.conflict_rate]], { range: [0, 1.02], ticks: [0, 0.25, 0.5, 0.75, 1] }));
  if (known(run.condition_number)) charts.push(strip(run, columns, t("condition_number"), [[null, run.condition_number]], { log: true }));
  if (run.shares) charts.push(strip(run, columns, t("shares"), run.shares.map((v, k) => [k, v]), {}));
  if (run.corrected?.signal_to_noise) charts.push(strip(run, columns, t("signal_to_noise"), run.corrected.signal_to_noise.map((v, k) => [k, v]), {}));
  if (!charts.length) return h("div");
  return card(t("other_numbers"), t("other_note"), h("div", { class: `multiples columns-${columns}` }, charts));
}

const taskColour = (k) => `var(--t${k % 6})`;
const taskDash = (k) => DASHES[Math.floor(k / 6) % 4];

function strip(run, columns, title, lines, axis) {
  const values = lines.flatMap(([, v]) => v).filter((v) => v !== null && (!axis.log || v > 0));
  if (!values.length) return h("figure", {}, h("figcaption", {}, title), empty(t("undefined_here")));
  const range = axis.range || (axis.log ? positive(extent(values)) : extended(extent(values)));
  const parts = frame({ width: widthOf(columns), height: 180, left: 50, top: 12, label: title, x: { range: extent(run.steps) }, y: { ...axis, range } });
  for (const [k, v] of lines) {
    const stroke = k === null ? "var(--accent)" : taskColour(k);
    parts.svg.append(s("path", { d: path(run.steps, v, parts.sx, parts.sy), fill: "none", stroke, "stroke-width": 1.9, "stroke-dasharray": k === null ? "" : taskDash(k) }));
    if (run.steps.length === 1 && v[0] !== null) parts.svg.append(s("circle", { cx: parts.sx(run.steps[0]), cy: parts.sy(v[0]), r: 3, fill: stroke }));
  }
  crosshair(parts, run.steps, (x) => [
    h("div", { class: "tip-head" }, t("step_n", { n: x })),
    ...lines.map(([k, v]) => `${k === null ? title : run.tasks[k]}: ${num(v[run.steps.indexOf(x)])}`),
  ]);
  const keys = lines.length > 1 && h("p", { class: "legend" }, lines.map(([k]) => h("span", {}, h("i", { class: "key line", style: `border-color:${taskColour(k)}` }), run.tasks[k])));
  return h("figure", {}, h("figcaption", {}, title), parts.svg, keys);
}
