// 6. What each method costs: time per step, memory, time outside the steps.
const costMean = (i, key) => mean(DATA.runs.filter((r) => r.method === DATA.methods[i].name && r.role !== "search").map((r) => r[key]));

function costSection() {
  const shown = DATA.kind === "run" ? TRAINED : [...TRAINED, ...(SINGLE >= 0 ? [SINGLE] : [])];
  const rows = shown.map((i) => ({
    i,
    speed: costMean(i, "steps_per_second"),
    memory: costMean(i, "peak_memory_mb"),
    time: costMean(i, "train_runtime"),
    outside: costMean(i, "overhead_seconds"),
    conflict: costMean(i, "conflict_rate"),
  }));
  if (rows.every((r) => r.speed === null && r.memory === null)) return [empty(t("no_cost"))];
  const reference = rows.find((r) => SUM && DATA.methods[r.i].name === SUM.reference && r.speed) || rows.find((r) => r.speed && r.i !== SINGLE);
  for (const r of rows) r.relative = r.speed && reference && r.i !== SINGLE ? reference.speed / r.speed : null;
  const columns = [
    methodColumn(),
    { name: t("relative_time"), value: (r) => r.relative, cell: (r) => bar(r.relative, rows.map((x) => x.relative), (v) => `${num(v, 2)}×`) },
    { name: t("steps_per_second"), value: (r) => r.speed, cell: (r) => num(r.speed, 2) },
    { name: t("memory"), value: (r) => r.memory, cell: (r) => bar(r.memory, rows.map((x) => x.memory), (v) => num(v, 0)) },
    { name: t("run_time"), value: (r) => r.time, cell: (r) => num(r.time, 1) },
    rows.some((r) => r.outside !== null) && { name: t("outside"), value: (r) => r.outside, cell: (r) => (r.outside === null ? "–" : `${num(r.outside, 2)} s${r.time ? ` (${num((100 * r.outside) / r.time, 1)} %)` : ""}`) },
    { name: t("conflict_rate"), value: (r) => r.conflict, cell: (r) => (r.conflict === null ? "–" : `${num(100 * r.conflict, 1)} %`) },
  ].filter(Boolean);
  columns[0] = { ...columns[0], value: (r) => DATA.methods[r.i].label, cell: (r) => h("span", { class: "method" }, swatch(r.i), DATA.methods[r.i].label) };
  const note = reference && DATA.kind !== "run" ? t("cost_note", { name: DATA.methods[reference.i].label }) : t("cost_note_run");
  const parts = [card(t("cost_table"), note, sortable("cost", columns, rows, { method: (r) => r.i, tall: rows.length > 16 }))];
  const points = SUM ? rows.filter((r) => r.i !== SINGLE && r.relative && typeof scoreOf(r.i)?.mean === "number") : [];
  if (points.length > 1) parts.unshift(card(t("score_against_cost", { score: scoreName() }), t("score_against_cost_note"), costScatter(points)));
  return parts;
}

function bar(value, all, text) {
  if (value === null) return h("td", {}, "–");
  const most = Math.max(...all.filter((v) => v !== null));
  return h("td", { class: "bar" }, h("i", { style: `width:${((100 * value) / most).toFixed(1)}%` }), h("span", {}, text(value)));
}

function costScatter(points) {
  const ys = points.map((r) => scoreOf(r.i).mean);
  const width = innerWidth < 640 ? 400 : 900;
  const parts = frame({
    width, height: 320, left: 56, top: 18, bottom: 36, label: t("score_against_cost", { score: scoreName() }),
    x: { range: extended(extent([1, ...points.map((r) => r.relative)])), label: t("relative_time"), grid: true, format: (v) => `${short(v)}×` },
    y: { range: extended(extent([0, ...ys])), zero: 0, label: `${scoreName()} (%)` },
  });
  const placed = [];
  for (const r of points) {
    const [x, y] = [parts.sx(r.relative), parts.sy(scoreOf(r.i).mean)];
    const free = points.length <= 24 && !placed.some(([a, b]) => Math.abs(a - x) < 90 && Math.abs(b - y) < 13);
    if (free) placed.push([x, y]);
    const right = x > width - 140;
    parts.svg.append(
      s(
        "g",
        { ...ofMethod(r.i), ...tipped(() => [methodLine(r.i), `${scoreName()}: ${percent(scoreOf(r.i).mean, 2)}`, `${t("relative_time")}: ${num(r.relative, 2)}×`]) },
        marker(r.i, x, y, 6),
        free && s("text", { x: x + (right ? -10 : 10), y: y + 4, class: `small${right ? " end" : ""}` }, DATA.methods[r.i].label),
      ),
    );
  }
  return h("div", { class: "scroll" }, parts.svg);
}
