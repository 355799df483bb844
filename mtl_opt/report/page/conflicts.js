// 4. Where and when gradients conflict: matrices over steps, the chosen pair over time, and layer by layer.
const RUNS = DATA.conflicts.runs;
const diagnosis = { run: 0, at: null, pair: 0, matrix: "cosines", playing: null, listeners: [] };
const GLYPH = { C: "✕", A: "✓", N: "~", "-": "" };
const wordOf = (letter) => ({ C: t("real_conflict"), A: t("real_agreement"), N: t("noise") })[letter] || t("not_measured");

const pairsOf = (tasks) => tasks.flatMap((a, i) => tasks.slice(i + 1).map((b, j) => [i, i + 1 + j]));
const pairIndex = (n, i, j) => (i < j ? i * n - (i * (i + 1)) / 2 + (j - i - 1) : pairIndex(n, j, i));
const pairName = (run, p) => pairsOf(run.tasks)[p].map((i) => run.tasks[i]).join(" × ");
const runName = (run) => (DATA.kind === "run" ? run.run : `${labelOf(run.method)} · ${t("seed")} ${run.seed}`);

function whyNoConflict() {
  if (DATA.tasks.length < 2) return t("one_task");
  return t("no_conflict");
}

function conflictsSection() {
  stopPlaying();
  if (!RUNS.length) return [empty(whyNoConflict())];
  diagnosis.run = Math.min(diagnosis.run, RUNS.length - 1);
  const body = h("div");
  const parts = [];
  const summary = verdictsOverRuns();
  if (summary) parts.push(card(t("verdicts"), t("verdicts_note"), summary));
  if (DATA.conflicts.left_out) parts.push(empty(t("left_out", { n: DATA.conflicts.left_out, shown: RUNS.length })));
  if (RUNS.length > 1) {
    const options = RUNS.map((run, k) => [k, runName(run)]);
    parts.push(h("div", { class: "controls" }, chooser(t("run"), options, diagnosis.run, (k) => { diagnosis.run = Number(k); diagnosis.at = null; stopPlaying(); drawRun(body); redrawShadows(); })));
  }
  drawRun(body);
  return [...parts, body];
}

/** How many runs found each verdict for a pair, at their last step. */
function verdictsOverRuns() {
  const measured = RUNS.filter((run) => run.corrected);
  if (!measured.length) return null;
  const rows = pairsOf(DATA.tasks).map((_, p) => {
    const letters = measured.map((run) => run.corrected.verdict[p].at(-1));
    const count = (letter) => letters.filter((l) => l === letter).length;
    return {
      name: pairName(measured[0], p), C: count("C"), A: count("A"), N: count("N"),
      raw: mean(measured.map((run) => mean(run.cosines[p]))) / 100,
      corrected: mean(measured.map((run) => run.corrected.cosines[p].at(-1))),
    };
  });
  const of = (letter) => ({ value: (r) => r[letter], cell: (r) => (r[letter] ? `${r[letter]} / ${measured.length}` : "–") });
  const columns = [
    { name: t("pair"), left: true, value: (r) => r.name },
    { name: t("raw_mean"), value: (r) => r.raw, cell: (r) => shaded(r.raw, 1, num(r.raw, 2)) },
    { name: t("corrected_last"), value: (r) => r.corrected, cell: (r) => (r.corrected === null ? "–" : shaded(r.corrected / 100, 1, num(r.corrected / 100, 2))) },
    { name: `✕ ${t("real_conflict")}`, ...of("C") },
    { name: `✓ ${t("real_agreement")}`, ...of("A") },
    { name: `~ ${t("noise")}`, ...of("N") },
  ];
  return sortable("verdicts", columns, rows, { tall: rows.length > 16 });
}

function drawRun(body) {
  const run = RUNS[diagnosis.run];
  const last = run.steps.length - 1;
  if (diagnosis.at === null || diagnosis.at > last) diagnosis.at = last;
  diagnosis.pair = Math.min(diagnosis.pair, run.cosines.length - 1);
  diagnosis.listeners = [];
  const onStep = (draw) => { diagnosis.listeners.push(draw); draw(); };
  const matrices = h("div", { class: "matrices" });
  const timeline = h("div");
  const layers = h("div");
  const redraw = () => {
    timeline.replaceChildren(pairTimeline(run, onStep, pick));
    layers.replaceChildren(layerMap(run, onStep));
  };
  const pick = (p) => { diagnosis.pair = p; diagnosis.listeners = []; onStep(drawMatrices); redraw(); redrawShadows(true); };
  const drawMatrices = () => matrices.replaceChildren(...bothMatrices(run, pick));
  const kinds = ["cosines", "magnitude_similarity", "curvature_bound"].filter((kind) => run[kind]);
  const choice = h("div");
  const drawChoice = () => choice.replaceChildren(kinds.length > 1 ? segmented(t("matrix"), kinds.map((k) => [k, t(`m_${k}`)]), diagnosis.matrix, (k) => { diagnosis.matrix = k; drawChoice(); drawMatrices(); }) : "");
  if (!kinds.includes(diagnosis.matrix)) diagnosis.matrix = "cosines";
  drawChoice();
  onStep(drawMatrices);
  redraw();
  body.replaceChildren(
    card(t("matrices"), t("matrices_note"), choice, stepControl(run), matrices),
    card(t("pair_over_time"), t("pair_note"), timeline),
    card(t("layers"), t("layers_note"), layers),
    strips(run),
  );
}

function stepTo(at) {
  diagnosis.at = at;
  for (const input of document.querySelectorAll(".step-input")) input.value = at;
  for (const output of document.querySelectorAll(".step-output")) output.textContent = t("step_n", { n: RUNS[diagnosis.run].steps[at] });
  diagnosis.listeners.forEach((draw) => draw());
  redrawShadows(true);
}

function stopPlaying() {
  clearInterval(diagnosis.playing);
  diagnosis.playing = null;
  for (const button of document.querySelectorAll(".play")) button.textContent = `▶ ${t("play")}`;
}

function stepControl(run) {
  const last = run.steps.length - 1;
  if (last < 1) return h("p", { class: "note" }, t("one_step", { step: run.steps[0] }));
  const play = h("button", { type: "button", class: "play" }, `▶ ${t("play")}`);
  play.addEventListener("click", () => {
    if (diagnosis.playing) return stopPlaying();
    for (const button of document.querySelectorAll(".play")) button.textContent = `❚❚ ${t("pause")}`;
    if (diagnosis.at >= last) stepTo(0);
    diagnosis.playing = setInterval(() => (diagnosis.at < last ? stepTo(diagnosis.at + 1) : stopPlaying()), 350);
    return undefined;
  });
  return h(
    "div",
    { class: "stepper" },
    play,
    h("input", { type: "range", class: "step-input", min: 0, max: last, value: diagnosis.at, "aria-label": t("step"), oninput: (event) => { stopPlaying(); stepTo(Number(event.target.value)); } }),
    h("output", { class: "step-output" }, t("step_n", { n: run.steps[diagnosis.at] })),
  );
}

function bothMatrices(run, pick) {
  const at = diagnosis.at;
  const kind = diagnosis.matrix;
  const value = (p) => (kind === "curvature_bound" ? run[kind][p][at] : run[kind][p][at] === null ? null : run[kind][p][at] / 100);
  const limit = kind === "curvature_bound" ? Math.max(1e-9, ...run[kind].flat().map((v) => v || 0)) : 1;
  const raw = matrix(run, value, limit, kind === "cosines" ? 1 : kind === "curvature_bound" ? 0 : 1, pick, (p) => [`${t(`m_${kind}`)}: ${num(value(p), 3)}`]);
  const figures = [h("figure", {}, h("figcaption", {}, kind === "cosines" ? t("raw") : t(`m_${kind}`)), raw)];
  const corrected = run.corrected;
  if (!corrected || corrected.window[at] === null) {
    figures.push(h("figure", {}, h("figcaption", {}, t("corrected")), empty(corrected ? t("not_yet_corrected") : t("no_corrected"))));
    return figures;
  }
  const of = (name, p) => (corrected[name][p][at] === null ? null : corrected[name][p][at] / 100);
  const lines = (p) => [`${t("corrected")}: ${num(of("cosines", p), 2)}${of("low", p) === null ? "" : ` (${num(of("low", p), 2)} … ${num(of("high", p), 2)})`}`, wordOf(corrected.verdict[p][at])];
  const grid = matrix(run, (p) => of("cosines", p), 1, 1, pick, lines, (p) => corrected.verdict[p][at]);
  figures.push(h("figure", {}, h("figcaption", {}, t("corrected_window", { n: corrected.window[at] })), grid));
  return figures;
}

/** Tasks × tasks; a click on a cell chooses the pair. `letter(p)` puts the verdict's sign into the cell. */
function matrix(run, value, limit, diagonal, pick, lines, letter = null) {
  const { tasks } = run;
  const n = tasks.length;
  const size = n > 10 ? 34 : 64;
  const longest = Math.max(...tasks.map((task) => [...task].reduce((w, c) => w + (c.charCodeAt(0) > 0x2e80 ? 2 : 1), 0)));
  const left = Math.min(150, 18 + longest * 6.6);
  const below = n > 4 || left > 90 ? 74 : 24;
  const svg = s("svg", { viewBox: `0 0 ${left + n * size + 8} ${n * size + below}`, class: "chart matrix", role: "img", "aria-label": t("matrices"), style: `max-width:${1.15 * (left + n * size)}px` });
  tasks.forEach((task, i) => {
    svg.append(s("text", { x: left - 8, y: size * (i + 0.5) + 4, class: "label end" }, clip(task, 20), s("title", {}, task)));
    const x = left + size * (i + 0.5);
    const y = n * size + 16;
    svg.append(s("text", { x, y, class: `label ${below > 30 ? "end" : "middle"}`, transform: below > 30 ? `rotate(-32 ${x} ${y})` : null }, clip(task, below > 30 ? 14 : Math.floor(size / 7) + 4), s("title", {}, task)));
  });
  for (let i = 0; i < n; i += 1) {
    for (let j = 0; j < n; j += 1) svg.append(cellOf(i, j));
  }
  return svg;

  function cellOf(i, j) {
    const p = i === j ? null : pairIndex(n, i, j);
    const v = p === null ? diagonal : value(p);
    const mark = p !== null && letter ? letter(p) : "";
    const [x, y] = [left + j * size, i * size];
    const chosen = p !== null && p === diagnosis.pair;
    const noise = mark === "N" || (p !== null && v === null);
    return s(
      "g",
      p === null
        ? { class: "cell diagonal" }
        : { class: `cell${chosen ? " chosen" : ""}`, tabindex: 0, role: "button", "aria-label": `${pairName(run, p)} ${num(v, 2)} ${mark ? wordOf(mark) : ""}`, onclick: () => pick(p), onkeydown: (event) => (event.key === "Enter" || event.key === " ") && (event.preventDefault(), pick(p)), ...tipped(() => [h("b", {}, pairName(run, p)), ...lines(p)]) },
      s("rect", { x: x + 1.5, y: y + 1.5, width: size - 3, height: size - 3, rx: 4, style: `fill:${p === null ? "var(--line)" : diverging(v, limit)}`, "stroke-dasharray": noise ? "3 3" : null, class: noise ? "noise" : null }),
      n <= 10 && s("text", { x: x + size / 2, y: y + size / 2 + (mark ? 0 : 4), class: "middle cell-value", style: `fill:${p === null ? "var(--muted)" : inkOn(v, limit)}` }, v === null && mark === "N" ? t("noise") : num(v, 2)),
      mark && v !== null && s("text", { x: x + size / 2, y: y + size / 2 + (n <= 10 ? 17 : 5), class: "middle cell-mark", style: `fill:${inkOn(v, limit)}` }, GLYPH[mark]),
    );
  }
}
