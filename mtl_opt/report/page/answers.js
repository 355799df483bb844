// 7. What the models answer: held-out rows of two methods side by side.
const answerState = { task: null, left: null, right: null, only: false };

function answersSection() {
  const kept = DATA.predictions;
  const names = Object.keys(kept.by_method);
  if (!names.length) return [empty(t("no_answers"))];
  answerState.task ??= kept.tasks[0];
  answerState.left ??= names[0];
  answerState.right ??= names[1] || null;
  const box = h("div");
  const draw = () => {
    const { task, left, right } = answerState;
    const set = (key) => (value) => { answerState[key] = value; draw(); };
    const options = names.map((name) => [name, labelOf(name)]);
    const rows = (kept.rows[task] || []).map((row, k) => ({ ...row, place: k + 1, left: kept.by_method[left]?.[task]?.[k], right: right && kept.by_method[right]?.[task]?.[k] }));
    const shown = answerState.only && right ? rows.filter((r) => r.left !== r.right) : rows;
    const side = (key, name) => ({ name: labelOf(name), left: true, value: (r) => r[key], cell: (r) => answer(r[key], r.label) });
    const columns = [
      { name: "#", value: (r) => r.place, cell: (r) => String(r.place) },
      { name: t("prompt"), left: true, value: (r) => r.prompt, cell: (r) => h("div", { class: "prompt" }, r.prompt) },
      { name: t("label"), left: true, value: (r) => r.label, cell: (r) => h("div", { class: "answer" }, r.label) },
      side("left", left),
      ...(right ? [side("right", right)] : []),
    ];
    box.replaceChildren(
      h(
        "div",
        { class: "controls" },
        chooser(t("task"), kept.tasks.map((name) => [name, name]), task, set("task")),
        chooser(t("method"), options, left, set("left")),
        right && chooser(t("against"), options, right, set("right")),
        right && h("label", { class: "toggle" }, h("input", { type: "checkbox", checked: answerState.only, onchange: (e) => set("only")(e.target.checked) }), t("only_different")),
      ),
      shown.length ? sortable("answers", columns, shown, { tall: true }) : empty(t("nothing_here")),
    );
  };
  draw();
  return [h("p", { class: "note" }, t("answers_note")), box];
}

function answer(text, label) {
  if (text === undefined || text === null) return "–";
  const right = text.trim() === label.trim();
  return h("div", { class: "answer" }, h("span", { class: right ? "hit" : "miss", "aria-label": t(right ? "right" : "wrong") }, right ? "✓" : "✕"), " ", text || t("empty_answer"));
}
