// 5. What every other combiner would have done with the same gradients.
const shadowBox = h("div");
const shadowState = { when: "mean" };

function shadowsSection() {
  redrawShadows();
  return [shadowBox];
}

/** `light`: only the step moved, which matters when a single step is shown. */
function redrawShadows(light = false) {
  if (light && shadowState.when === "mean") return;
  const run = RUNS[diagnosis.run];
  if (!run || !run.shadows) {
    shadowBox.replaceChildren(empty(RUNS.some((r) => r.shadows) ? t("no_shadows_run") : t("no_shadows")));
    return;
  }
  const names = Object.keys(run.shadows);
  const rows = names.map((name) => shadowRow(run, name)).sort((a, b) => (a.angle ?? 999) - (b.angle ?? 999));
  const when = segmented(t("shadow_when"), [["mean", t("mean_of_run")], ["step", t("step_n", { n: run.steps[diagnosis.at] })]], shadowState.when, (w) => { shadowState.when = w; redrawShadows(); });
  shadowBox.replaceChildren(
    h("div", { class: "answer-box" }, h("p", { class: "lead" }, shadowSentence(run, rows)), h("p", { class: "note" }, t("shadow_run", { run: runName(run) }))),
    h("div", { class: "controls" }, when),
    card(t("shadow_angles"), t("shadow_angles_note"), angleChart(run, rows)),
    card(t("shadow_changes"), t("shadow_changes_note"), shadowTable(run, rows)),
  );
}

function shadowRow(run, name) {
  const shadow = run.shadows[name];
  const pick = (values) => (shadowState.when === "mean" ? mean(values) : values[diagnosis.at]);
  const change = shadow.change.map(pick);
  const known = shadow.change[0].map((_, k) => shadow.change.map((v) => v[k])).filter((v) => v.every((x) => x !== null));
  return {
    name, shadow, change, angle: pick(shadow.angle), weights: shadow.weights.map(pick),
    spread: extent(shadow.angle),
    worst: change.some((v) => v === null) ? null : Math.max(...change),
    harmful: known.length ? known.filter((v) => Math.max(...v) > 0).length / known.length : null,
    method: INDEX.has(name) && INDEX.get(name) !== SINGLE ? INDEX.get(name) : null,
  };
}

/** Who would have done much the same, who something else. */
function shadowSentence(run, rows) {
  const others = rows.filter((r) => r.angle !== null && r.name !== run.taken);
  if (!others.length) return t("no_angles");
  const close = others.filter((r) => r.angle < 10);
  const far = others.at(-1);
  const words = { n: close.length, of: others.length, far: far.name, angle: num(far.angle, 0), near: others[0].name, small: num(others[0].angle, 0), names: listed(close.map((r) => r.name), 4) };
  return t(close.length ? "shadow_close" : "shadow_apart", words);
}

function angleChart(run, rows) {
  const shown = rows.filter((r) => r.angle !== null);
  if (!shown.length) return empty(t("no_angles"));
  const narrow = innerWidth < 640;
  const [row, width, left, top] = [19, narrow ? 420 : 900, narrow ? 130 : 190, 4];
  const height = shown.length * row + 34;
  const most = Math.max(10, ...shown.map((r) => Math.max(r.spread?.[1] ?? 0, r.angle)));
  const { svg, sx } = frame({ width, height, left, top, bottom: 30, label: t("shadow_angles"), x: { range: [0, most * 1.04], grid: true, format: (v) => `${short(v)}°` }, y: { range: [0, 1], ticks: [] } });
  shown.forEach((r, place) => {
    const y = top + row * (place + 0.5);
    svg.append(
      s(
        "g",
        { class: "hoverable", ...(r.method === null ? {} : ofMethod(r.method)), ...tipped(() => shadowTip(run, r)) },
        s("rect", { x: 0, y: y - row / 2, width, height: row, fill: "transparent" }),
        s("text", { x: left - 12, y: y + 4, class: `label end${r.name === run.taken ? " strong" : ""}` }, r.name, r.shadow.on_this_trajectory ? " †" : ""),
        r.spread && s("line", { x1: sx(r.spread[0]), x2: sx(r.spread[1]), y1: y, y2: y, class: "range" }),
        s("circle", { cx: sx(r.angle), cy: y, r: 4.6, fill: r.method === null ? "var(--muted)" : colour(r.method), stroke: "var(--card)" }),
      ),
    );
  });
  const daggers = rows.some((r) => r.shadow.on_this_trajectory);
  return h("div", {}, h("div", { class: shown.length > 30 ? "scroll tall" : "scroll" }, svg), daggers && h("p", { class: "legend" }, `† ${t("on_this_trajectory")}`));
}

function shadowTip(run, r) {
  return [
    h("b", {}, r.name),
    `${t("angle")}: ${num(r.angle, 1)}°`,
    ...run.tasks.map((task, k) => `${task}: ${t("weight")} ${num(r.weights[k], 2)}, ${t("change")} ${num(r.change[k], 4)}`),
    r.shadow.note,
    r.shadow.on_this_trajectory && t("on_this_trajectory"),
  ].filter(Boolean);
}

function shadowTable(run, rows) {
  const limit = Math.max(1e-12, ...rows.flatMap((r) => r.change).filter((v) => v !== null).map(Math.abs));
  const columns = [
    { name: t("combiner"), left: true, value: (r) => r.name, cell: (r) => h("span", { title: r.shadow.note || null, class: r.name === run.taken ? "strong" : null }, `${r.name}${r.shadow.on_this_trajectory ? " †" : ""}`) },
    { name: t("angle"), value: (r) => r.angle, cell: (r) => (r.angle === null ? "–" : `${num(r.angle, 1)}°`) },
    ...run.tasks.map((task, k) => ({ name: `${t("change_of")} ${task}`, value: (r) => r.change[k], cell: (r) => shaded(r.change[k] === null ? null : -r.change[k], limit, num(r.change[k], 4), tipped(() => shadowTip(run, r))) })),
    { name: t("harmful"), value: (r) => r.harmful, cell: (r) => (r.harmful === null ? "–" : `${num(100 * r.harmful, 0)} %`), help: t("harmful_help") },
    ...run.tasks.map((task, k) => ({ name: `${t("weight")} ${task}`, value: (r) => r.weights[k], cell: (r) => num(r.weights[k], 2) })),
  ];
  return sortable("shadows", columns, rows, { tall: rows.length > 16, method: (r) => r.method, marked: (r) => r.name === run.taken });
}
