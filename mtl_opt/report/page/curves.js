// 3. Learning curves: per task the mean over seeds, with the range of the seeds as a band.
const QUANTITIES = [...new Set(Object.values(DATA.curves).flatMap((c) => Object.keys(c)))];
const curveState = { quantity: null, log: false, band: true, single: false };

function quantityName(quantity) {
  const known = { loss: t("q_loss"), grad_norm: t("q_norm"), weight: t("q_weight"), pull: t("q_pull") };
  return known[quantity] || t("q_eval", { metric: quantity.replace(/^eval_/, "") });
}

function curvesSection() {
  if (!QUANTITIES.length) return [empty(t("no_curves"))];
  if (!curveState.quantity) {
    curveState.quantity = QUANTITIES.includes("loss") ? "loss" : QUANTITIES[0];
  }
  const columns = columnsFor(DATA.tasks.length);
  const box = h("div", { class: `multiples columns-${columns}` });
  const controls = h("div", { class: "controls" });
  const draw = () => {
    const { quantity } = curveState;
    controls.replaceChildren(...[
      segmented(t("quantity"), QUANTITIES.map((q) => [q, quantityName(q)]), quantity, (q) => { curveState.quantity = q; draw(); }),
      toggle(t("log_axis"), "log", draw),
      DATA.methods.some((m) => m.seeds.length > 1) && toggle(t("bands"), "band", draw),
      SINGLE >= 0 && toggle(t("with_single"), "single", draw),
    ].filter(Boolean));
    box.replaceChildren(...DATA.tasks.map((task) => curveChart(task, quantity, columns)).filter(Boolean));
    if (!box.children.length) box.append(empty(t("no_curves")));
  };
  draw();
  const note = DATA.kind === "run" ? t("curves_note_run") : DATA.methods.some((m) => m.seeds.length > 1) ? t("curves_note") : t("curves_note_one");
  return [h("p", { class: "note" }, note), controls, box];
}

function toggle(text, key, draw) {
  return h(
    "label",
    { class: "toggle" },
    h("input", { type: "checkbox", checked: curveState[key], onchange: (event) => { curveState[key] = event.target.checked; draw(); } }),
    text,
  );
}

/** How many charts stand side by side, so that no row has a single one where it can be avoided. */
function columnsFor(charts) {
  if (innerWidth < 640 || charts === 1) return 1;
  return charts % 3 === 0 || charts > 4 ? 3 : 2;
}

/** Width of a chart in its own units, so that its text comes out at the size of the page's. */
const widthOf = (columns) => (innerWidth < 640 ? 360 : [0, 1000, 500, 340][columns]);

function curveChart(task, quantity, columns) {
  const shown = [...(curveState.single && SINGLE >= 0 ? [SINGLE] : []), ...TRAINED]
    .map((i) => [i, DATA.curves[DATA.methods[i].name]?.[quantity]?.[task]])
    .filter(([, curve]) => curve);
  if (!shown.length) return null;
  const log = curveState.log;
  const bands = curveState.band;
  const ys = shown.flatMap(([, c]) => [...c.mean, ...(bands && c.low ? [...c.low, ...c.high] : [])]).filter((v) => typeof v === "number" && (!log || v > 0));
  if (!ys.length) return null;
  const range = log ? positive(extent(ys)) : extended(extent(ys), 0.04);
  const xs = [...new Set(shown.flatMap(([, c]) => c.x))].sort((a, b) => a - b);
  const parts = frame({
    width: widthOf(columns), height: columns === 1 ? 300 : 235, left: 46, top: 14, label: `${task}: ${quantityName(quantity)}`,
    x: { range: extent(xs), label: t("step") }, y: { range, log },
  });
  for (const [i, curve] of shown) parts.svg.append(curveGroup(i, curve, parts));
  crosshair(parts, xs, (x, event) => curveTip(x, event, shown, parts));
  return h("figure", {}, h("figcaption", {}, task), parts.svg);
}

const positive = ([low, high]) => [low / 1.1, high * 1.1];

function curveGroup(i, curve, { sx, sy }) {
  return s(
    "g",
    { "data-m": i },
    curveState.band && curve.low && s("path", { d: area(curve.x, curve.low, curve.high, sx, sy), fill: colour(i), opacity: TRAINED.length > 8 ? 0.06 : 0.14 }),
    s("path", { d: path(curve.x, curve.mean, sx, sy), fill: "none", stroke: colour(i), "stroke-width": TRAINED.length > 12 ? 1.2 : 1.8, "stroke-dasharray": dash(i), class: "curve" }),
    curve.x.length <= 8 && curve.x.map((x, k) => typeof curve.mean[k] === "number" && (!sy.log || curve.mean[k] > 0) && marker(i, sx(x), sy(curve.mean[k]), 3)),
  );
}

/** The values of all methods at a step, in the order in which they lie; the one nearest to the mouse is highlighted everywhere. */
function curveTip(x, event, shown, { svg, sy, height }) {
  const box = svg.getBoundingClientRect();
  const at = ((event.clientY - box.top) / box.height) * height;
  const rows = shown
    .map(([i, curve]) => [i, curve, curve.x.indexOf(x)])
    .filter(([, curve, k]) => k >= 0 && typeof curve.mean[k] === "number" && (!sy.log || curve.mean[k] > 0))
    .sort((a, b) => b[1].mean[b[2]] - a[1].mean[a[2]]);
  if (!rows.length) return [t("step_n", { n: x })];
  const near = rows.reduce((best, row) => (Math.abs(sy(row[1].mean[row[2]]) - at) < Math.abs(sy(best[1].mean[best[2]]) - at) ? row : best));
  hover(near[0]);
  const place = rows.indexOf(near);
  const first = Math.max(0, Math.min(place - 5, rows.length - 11));
  const part = rows.slice(first, first + 11);
  return [
    h("div", { class: "tip-head" }, t("step_n", { n: x })),
    ...part.map(([i, curve, k]) => {
      const spread = curve.low && curve.low[k] !== curve.high[k] ? ` (${num(curve.low[k])} … ${num(curve.high[k])})` : "";
      const line = methodLine(i, num(curve.mean[k]), spread);
      if (i === near[0]) line.classList.add("near");
      return line;
    }),
    rows.length > part.length && t("more", { n: rows.length - part.length }),
  ].filter(Boolean);
}
