// 2. How each method trades one task for another.
function tradeSection() {
  if (!SUM || !SUM.methods.length) return [empty(t("nothing_here"))];
  if (SUM.tasks.length < 2) return [empty(t("one_task"))];
  const parts = [card(t("parallel"), t("parallel_note"), h("div", { class: "scroll" }, parallel()))];
  parts.push(SUM.baselines ? card(t("delta_tasks"), t("delta_tasks_note"), changesTable()) : empty(t("no_baselines", { name: labelOf(SUM.reference) })));
  return parts;
}

/** One axis per task, better is always up; the last axis is the mean rank. */
function parallelAxes() {
  const shown = SINGLE >= 0 && SUM.baselines ? [...TRAINED, SINGLE] : TRAINED;
  const axes = SUM.tasks.map((task) => {
    const metric = SUM.main_metric[task];
    return {
      name: task, unit: metric, up: SUM.directions[metric] !== false, task, metric,
      value: (i) => ofIndex(i)?.scores[task]?.[metric]?.mean ?? null,
    };
  });
  const ranks = TRAINED.map((i) => ofIndex(i)?.mean_rank ?? null);
  if (ranks.some((rank) => rank !== null)) {
    axes.push({ name: t("mean_rank"), unit: "", up: false, value: (i) => (i === SINGLE ? null : ofIndex(i)?.mean_rank ?? null) });
  }
  return [shown, axes];
}

function parallel() {
  const [shown, axes] = parallelAxes();
  const spacing = Math.max(110, Math.min(230, 860 / Math.max(1, axes.length - 1)));
  const [top, height, left] = [44, 330, 70];
  const width = left * 2 + spacing * (axes.length - 1);
  const svg = s("svg", { viewBox: `0 0 ${width} ${height}`, class: "chart parallel", role: "img", "aria-label": t("parallel"), style: `min-width:${Math.min(width, 110 * axes.length)}px;max-width:${1.25 * width}px` });
  axes.forEach((axis, place) => {
    const x = left + place * spacing;
    const range = extended(extent(shown.map(axis.value)) || [0, 1], 0.04);
    axis.y = scale(axis.up ? range : [range[1], range[0]], [height - 16, top]);
    axis.x = x;
    svg.append(s("line", { x1: x, x2: x, y1: top, y2: height - 16, class: "axis-line" }));
    svg.append(s("text", { x, y: 14, class: "label strong middle" }, clip(axis.name, Math.floor(spacing / 8)), s("title", {}, axis.name)));
    svg.append(s("text", { x, y: 29, class: "tick middle" }, `${axis.unit}${axis.up ? "" : ` ${t("lower_better")}`}`.trim()));
    for (const v of ticks(...range, 5)) {
      if (v >= range[0] && v <= range[1]) svg.append(s("text", { x: x + 5, y: axis.y(v) + 3, class: "tick halo" }, short(v)));
    }
  });
  for (const i of shown) {
    const points = axes.map((axis) => [axis.x, axis.value(i) === null ? null : axis.y(axis.value(i))]);
    const d = path(points.map((p) => p[0]), points.map((p) => p[1]), (x) => x, Object.assign((y) => y, {}));
    const attributes = { d, fill: "none", stroke: colour(i), "stroke-dasharray": dash(i) };
    svg.append(
      s(
        "g",
        { ...ofMethod(i), ...tipped(() => [methodLine(i), ...axes.map((axis) => `${axis.name}: ${num(axis.value(i))}`)]) },
        s("path", { ...attributes, "stroke-width": 12, stroke: "transparent" }),
        s("path", { ...attributes, "stroke-width": i === SINGLE ? 1.6 : 2, class: "curve" }),
        points.filter((p) => p[1] !== null).map((p) => marker(i, p[0], p[1], 3.6)),
      ),
    );
  }
  return svg;
}

const transferOf = (i, task) => SUM.transfer.find((c) => c.method === DATA.methods[i].name && c.task === task);

/** Method × task: relative change against the single-task baseline; ▼ marks harm beyond chance. */
function changesTable() {
  const all = TRAINED.flatMap((i) => SUM.tasks.map((task) => ofIndex(i).changes[task]?.mean)).filter((v) => typeof v === "number");
  const limit = Math.max(1e-9, ...all.map(Math.abs));
  const columns = [
    methodColumn(),
    ...SUM.tasks.map((task) => ({
      name: task,
      value: (i) => ofIndex(i).changes[task]?.mean ?? null,
      cell: (i) => changeCell(i, task, limit),
    })),
    { name: t("harmed"), value: (i) => harmed(i).length, cell: (i) => (harmed(i).length ? harmed(i).join(", ") : all.length ? t("none") : "–"), left: true, help: t("harmed_help") },
  ];
  const table = sortable("changes", columns, TRAINED, { method: (i) => i, tall: TRAINED.length > 16 });
  const legend = h("p", { class: "legend" }, h("span", {}, h("i", { class: "key bad" }), t("key_worse")), h("span", {}, h("i", { class: "key good" }), t("key_better")), h("span", {}, "▲ ▼ ", t("key_significant")));
  const missing = all.length < TRAINED.length * SUM.tasks.length;
  return [table, legend, missing && h("p", { class: "legend" }, `–: ${t("no_change_reason")}`)];
}

const harmed = (i) => SUM.tasks.filter((task) => (ofIndex(i).changes[task]?.mean ?? 0) < 0);

function changeCell(i, task, limit) {
  const score = ofIndex(i).changes[task];
  const value = score?.mean ?? null;
  if (value === null) return h("td", { class: "shaded", title: t("no_change_reason") }, "–");
  const test = transferOf(i, task);
  const sure = test && (test.verdict === "better" || test.verdict === "worse");
  const lines = () => [
    methodLine(i),
    `${task}: ${percent(value, 2)} ${interval(score, 2)}`,
    test && `${verdictText(test.verdict)} · p = ${num(test.p_holm, 3)}`,
  ].filter(Boolean);
  return shaded(value, limit, `${percent(value)}${sure ? (value < 0 ? " ▼" : " ▲") : ""}`, tipped(lines));
}
