// 1. Which method won, and is it more than chance?
const SUM = DATA.summary;
const BY_NAME = new Map(SUM ? SUM.methods.map((m) => [m.method, m]) : []);
const ofIndex = (i) => (i === SINGLE ? SUM.baselines : BY_NAME.get(DATA.methods[i].name));
const scoreOf = (i) => SUM.scores[DATA.methods[i].name] || null;
const labelOf = (name) => (INDEX.has(name) ? DATA.methods[INDEX.get(name)].label : name);
const VERDICT_TEXT = {
  better: "v_better", worse: "v_worse", "not distinguishable": "v_same", "too few seeds": "v_few", "not finite": "not_finite",
};
const verdictText = (word) => (VERDICT_TEXT[word] ? t(VERDICT_TEXT[word]) : word);
/** "Δm loss", or without baselines "Δ against sum". */
function scoreName() {
  const [name, reference] = SUM.score_name.replace(" %", "").split(" against ");
  return reference === undefined ? name : t("delta_against", { score: name, name: labelOf(SUM.reference) });
}

function interval(score, digits = 1) {
  return score && score.low !== null ? t("interval", { low: signed(score.low, digits), high: signed(score.high, digits) }) : "";
}

const wonOver = (verdict) => SUM.comparisons.filter((c) => c.verdict === verdict).map((c) => labelOf(c.other));

/** The sentence that answers the question, and what it rests on. */
function headline() {
  if (!SUM || !SUM.methods.length) return [t("w_none"), ""];
  if (SUM.methods.length === 1) return [t("w_one", { name: labelOf(SUM.methods[0].method) }), ""];
  const finite = Object.values(SUM.scores).some((score) => score.mean !== null);
  if (!SUM.winner) return [finite ? t("w_no_shared") : t("w_no_score"), ""];
  const [sentence, note] = said();
  return [sentence, note + sharedNote()];
}

/** "Better" stands only where a test has found it, and "worse" is never passed over. */
function said() {
  const score = SUM.winner_score;
  const [better, worse, same, few] = ["better", "worse", "not distinguishable", "too few seeds"].map(wonOver);
  const words = {
    name: labelOf(SUM.winner), score: scoreName(), value: percent(score.mean), n: score.seeds.length,
    interval: score.low === null ? "" : interval(score) + t("stop"),
    better: listed(better), worse: listed(worse), same: listed(same),
  };
  if (!better.length && !worse.length && !same.length && !few.length) return [t("w_untested", words), t("w_untested_note", words)];
  const level = SUM.comparisons.filter((c) => c.difference === 0).map((c) => labelOf(c.other));
  const atTop = SUM.winner === SUM.reference && SUM.score_name.includes(" against ");
  if (worse.length) return [t("w_worse", words), t("w_worse_note", words)];
  if (level.length) {
    const note = few.length ? t("w_few_note", words) : better.length ? t("w_level_note", words) : words.interval;
    return [t("w_level", { ...words, names: listed([labelOf(SUM.winner), ...level]) }), note];
  }
  if (few.length) return [t(atTop ? "w_reference" : "w_few", words), t("w_few_note", words)];
  if (!same.length) return [t(wonOver("not finite").length ? "w_clear_finite" : "w_clear", words), t("w_clear_note", words)];
  if (better.length) return [t(atTop ? "w_reference" : "w_tie", words), t("w_tie_note", words)];
  return [t(atTop ? "w_reference" : "w_all_tie", words), t("w_all_tie_note", words)];
}

/** Seeds that only some methods have do not count for who won. */
function sharedNote() {
  const shared = SUM.winner_score.seeds;
  const all = new Set(Object.values(SUM.scores).filter((score) => score.mean !== null).flatMap((score) => score.seeds));
  return all.size > shared.length ? ` ${t("shared_seeds", { seeds: listed(shared, 8) })}` : "";
}

/** What must not be overlooked: even the best method may lose to no multi-task learning at all. */
function alone() {
  const best = SUM && SUM.winner && SUM.baselines ? SUM.winner_score.mean : null;
  return best !== null && best < 0 && h("p", { class: "lead" }, t("below_single"));
}

function verdictSection() {
  const [sentence, note] = headline();
  const parts = [h("div", { class: "answer-box" }, h("p", { class: "headline" }, sentence), note && h("p", { class: "lead" }, note), alone())];
  if (!SUM || !SUM.methods.length) return parts;
  if (!SUM.baselines) parts.push(empty(t("no_baselines", { name: labelOf(SUM.reference) })));
  if (SUM.seeds.length === 1) parts.push(empty(t("one_seed")));
  const scored = TRAINED.filter((i) => scoreOf(i) && typeof scoreOf(i).mean === "number");
  if (scored.length) parts.push(card(t("forest", { score: scoreName() }), t("forest_note"), forest(scored)));
  const without = TRAINED.filter((i) => !scored.includes(i)).map((i) => DATA.methods[i].label);
  if (without.length && scored.length) parts.push(empty(t("no_score_for", { names: listed(without, 8) })));
  parts.push(card(t("all_methods"), t("all_methods_note"), methodsTable()));
  if (SUM.comparisons.length || SUM.against_reference.length) parts.push(comparisonsCard());
  if (SUM.search && SUM.search.length) parts.push(searchCard());
  if (SUM.notes.length) parts.push(notesBox(SUM.notes));
  return parts;
}

const notesBox = (notes) =>
  h("details", { class: "notes" }, h("summary", {}, t("notes", { n: notes.length })), h("ul", { lang: "en" }, notes.map((n) => h("li", {}, n))));

/** Dots with intervals, best on top; a pale dot per seed. */
function forest(indices) {
  const order = [...indices].sort((a, b) => scoreOf(b).mean - scoreOf(a).mean);
  const narrow = innerWidth < 640;
  const [row, width, left, right] = [26, narrow ? 420 : 900, narrow ? 112 : 210, narrow ? 12 : 190];
  const height = order.length * row + 40;
  const values = order.flatMap((i) => [scoreOf(i).low, scoreOf(i).high, scoreOf(i).mean, ...scoreOf(i).values]);
  const range = extended(extent([0, ...values]));
  const parts = frame({
    width, height, left, right, top: 6, bottom: 30, label: t("forest", { score: scoreName() }),
    x: { range, grid: true, zero: 0, format: (v) => short(v) },
    y: { range: [0, 1], ticks: [] },
  });
  const { svg, sx } = parts;
  svg.append(s("text", { x: (left + width - right) / 2, y: height - 2, class: "axis middle" }, `${narrow ? "" : `${scoreName()} (%) · `}${t(SUM.score_name.includes(" against ") ? "zero_reference" : "zero_single", { name: labelOf(SUM.reference) })}`));
  order.forEach((i, place) => {
    const y = 6 + row * (place + 0.5);
    const score = scoreOf(i);
    const against = SUM.comparisons.find((c) => c.other === DATA.methods[i].name);
    const word = DATA.methods[i].name === SUM.winner ? t("best") : against ? verdictText(flipped(against.verdict)) : "";
    const hit = s("rect", { x: 0, y: y - row / 2, width, height: row, fill: "transparent" });
    const group = s(
      "g",
      { ...ofMethod(i), ...tipped(() => forestTip(i, against)) },
      hit,
      s("text", { x: left - 12, y: y + 4, class: `label end${DATA.methods[i].name === SUM.winner ? " strong" : ""}` }, clip(DATA.methods[i].label, narrow ? 14 : 28)),
      score.values.filter((v) => v !== null).map((v) => s("circle", { cx: sx(v), cy: y, r: 2.6, fill: colour(i), opacity: 0.35 })),
      score.low !== null && s("line", { x1: sx(score.low), x2: sx(score.high), y1: y, y2: y, stroke: colour(i), "stroke-width": 2.5, class: "curve" }),
      marker(i, sx(score.mean), y, 5.5),
      !narrow && s("text", { x: width - right + 62, y: y + 4, class: "small end" }, percent(score.mean)),
      !narrow && s("text", { x: width - right + 74, y: y + 4, class: "small" }, word),
    );
    svg.append(group);
  });
  return h("div", { class: order.length > 24 ? "scroll tall" : "scroll" }, svg);
}

const clip = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);
const flipped = (verdict) => ({ better: "worse", worse: "better" })[verdict] || verdict;

function forestTip(i, against) {
  const score = scoreOf(i);
  const found = ofIndex(i);
  return [
    methodLine(i, percent(score.mean, 2), " ", interval(score, 2)),
    t("over_seeds", { n: score.seeds.length, values: score.values.map((v) => (v === null ? t("not_finite") : signed(v, 2))).join(", ") }),
    found && found.mean_rank !== null && `${t("mean_rank")}: ${num(found.mean_rank, 2)}`,
    against && t("against_best", { name: labelOf(against.method), word: verdictText(flipped(against.verdict)), difference: percent(against.difference === null ? null : -against.difference, 2), p: num(against.p_holm, 3) }),
  ].filter(Boolean);
}

const scoreText = (score, digits = 3) => {
  if (!score) return "–";
  const [seeds, lost] = score.values ? [score.seeds.length, score.values.filter((v) => v === null).length] : [score.seeds, score.lost];
  if (score.mean === null) return lost ? `⚠ ${t("diverged", { n: lost, of: seeds })}` : "–";
  return score.std === null ? num(score.mean, digits) : `${num(score.mean, digits)} ± ${num(score.std, digits)}`;
};

function scoreColumn(name, read, digits = 3, help = null) {
  return {
    name, help,
    value: (i) => read(ofIndex(i))?.mean ?? null,
    cell: (i) => scoreText(read(ofIndex(i)), digits),
  };
}

function methodsTable() {
  const columns = [
    methodColumn(),
    { name: t("seeds"), value: (i) => DATA.methods[i].seeds.length, cell: (i) => String(DATA.methods[i].seeds.length) },
    { name: `${scoreName()} %`, value: (i) => (i === SINGLE ? 0 : scoreOf(i)?.mean ?? null), cell: (i) => (i === SINGLE ? "0" : scoreText(scoreOf(i), 1)) },
    { name: t("mean_rank"), value: (i) => ofIndex(i).mean_rank, cell: (i) => num(ofIndex(i).mean_rank, 2), help: t("mean_rank_help") },
    SUM.baselines && { name: t("worst_task"), left: true, value: (i) => ofIndex(i).worst_task, cell: (i) => worstCell(i) },
    ...SUM.tasks.map((task) => scoreColumn(`${task} · ${SUM.main_metric[task]}`, (m) => m.scores[task]?.[SUM.main_metric[task]])),
    ...Object.keys(SUM.methods[0].macro).map((metric) => scoreColumn(t("macro", { metric }), (m) => m.macro[metric], 3, t("macro_help"))),
    ...Object.keys(SUM.methods[0].micro).map((metric) => scoreColumn(t("micro", { metric }), (m) => m.micro[metric], 3, t("micro_help"))),
    scoreColumn(t("steps_per_second"), (m) => m.costs.steps_per_second, 2),
    scoreColumn(t("memory"), (m) => m.costs.peak_memory_mb, 0),
  ].filter(Boolean);
  const rows = SINGLE >= 0 && SUM.baselines ? [...TRAINED, SINGLE] : TRAINED;
  return sortable("methods", columns, rows, { method: (i) => i, sort: { column: 2, down: true }, tall: rows.length > 16, marked: (i) => DATA.methods[i].name === SUM.winner });
}

function worstCell(i) {
  const { worst_task: task, changes } = ofIndex(i);
  return task ? `${task} (${percent(changes[task]?.mean ?? null)})` : "–";
}

function comparisonsCard() {
  const box = h("div");
  const draw = (which) => {
    const list = SUM[which];
    const other = (c) => (which === "comparisons" ? c.other : c.method);
    const columns = [
      { name: t(which === "comparisons" ? "best_against" : "method_against", { name: labelOf(which === "comparisons" ? SUM.winner : SUM.reference) }), left: true, value: other, cell: (c) => h("span", { class: "method" }, swatch(INDEX.get(other(c))), labelOf(other(c))) },
      { name: t("difference"), value: (c) => c.difference, cell: (c) => percent(c.difference, 2) },
      { name: t("interval_head"), value: (c) => c.low, cell: (c) => (c.low === null ? "–" : `${signed(c.low, 2)} … ${signed(c.high, 2)}`) },
      { name: t("p_holm"), value: (c) => c.p_holm, cell: (c) => num(c.p_holm, 3), help: t("p_help") },
      { name: t("seeds"), value: (c) => c.seeds.length, cell: (c) => String(c.seeds.length) },
      { name: t("in_words"), left: true, value: (c) => c.verdict, cell: (c) => verdictText(c.verdict) },
    ];
    const table = list.length ? sortable(which, columns, list, { method: (c) => INDEX.get(other(c)), tall: list.length > 16 }) : empty(t("nothing_here"));
    const tabs = segmented(t("comparisons"), [["comparisons", t("tab_best")], ["against_reference", t("tab_reference", { name: labelOf(SUM.reference) })]], which, draw);
    box.replaceChildren(tabs, table);
  };
  draw("comparisons");
  return card(t("comparisons"), t("comparisons_note"), box);
}

function searchCard() {
  const columns = [
    { name: t("method"), left: true, value: (r) => labelOf(r.method) },
    ...(SUM.search.some((r) => r.task) ? [{ name: t("task"), left: true, value: (r) => r.task, cell: (r) => r.task || "–" }] : []),
    { name: t("learning_rate"), value: (r) => r.learning_rate, cell: (r) => short(r.learning_rate) },
    { name: t("seed"), value: (r) => r.seed, cell: (r) => String(r.seed) },
    { name: t("validation_score"), value: (r) => r.search_score },
    { name: t("chosen"), value: (r) => Number(Boolean(r.chosen)), cell: (r) => (r.chosen ? "✓" : "") },
  ];
  return card(t("search"), t("search_note"), sortable("search", columns, SUM.search, { tall: SUM.search.length > 16, method: (r) => INDEX.get(r.method) ?? null, marked: (r) => r.chosen }));
}
