// The page: head, notices, sections in the order of the questions; drawn again when the language changes.
const SECTIONS = [
  ["verdict", verdictSection, () => DATA.kind === "comparison"],
  ["results", resultsSection, () => DATA.kind === "run"],
  ["trade", tradeSection, () => DATA.kind === "comparison"],
  ["curves", curvesSection, () => true],
  ["conflicts", conflictsSection, () => true],
  ["shadows", shadowsSection, () => true],
  ["cost", costSection, () => true],
  ["answers", answersSection, () => true],
  ["reproduce", reproduceSection, () => true],
];

/** Of a single run: every metric before and after. */
function resultsSection() {
  const run = DATA.runs[0];
  const keys = Object.keys(run.metrics).length ? Object.keys(run.metrics) : Object.keys(run.before);
  const words = { method: DATA.methods[0].label, steps: run.steps, total: run.total_steps };
  const parts = [h("div", { class: "answer-box" }, h("p", { class: "headline" }, t(DATA.finished ? "run_done" : "run_going", words)))];
  if (!keys.length) return [...parts, empty(t("no_results"))];
  const bad = (key) => run.non_finite.find((text) => text.startsWith(`${key}:`));
  const columns = [
    { name: t("task"), left: true, value: (k) => DATA.metric_keys[k]?.[0] || k },
    { name: t("metric"), left: true, value: (k) => DATA.metric_keys[k]?.[1] || "" },
    { name: t("before"), value: (k) => run.before[k] ?? null, cell: (k) => num(run.before[k]) },
    { name: t("after"), value: (k) => run.metrics[k] ?? null, cell: (k) => (bad(k) ? `⚠ ${bad(k).slice(k.length + 1)}` : num(run.metrics[k])) },
  ];
  return [...parts, card(t("results"), t("results_note"), sortable("results", columns, keys))];
}

function header() {
  const methods = TRAINED.length;
  const seeds = new Set(DATA.runs.filter((r) => r.role === "method").map((r) => r.seed)).size;
  const facts = DATA.kind === "run" ? t("facts_run", { tasks: listed(DATA.tasks, 8) }) : t("facts", { methods, seeds, runs: DATA.runs.length, tasks: listed(DATA.tasks, 8) });
  return h(
    "header",
    {},
    h("div", { class: "bar-top" }, h("span", { class: "brand" }, "mtl_opt"), controls()),
    h("h1", {}, DATA.name),
    h("p", { class: "facts" }, facts),
    h("p", { class: "facts faint" }, t("made", { time: DATA.made, version: DATA.version })),
  );
}

function controls() {
  return h(
    "div",
    { class: "switches" },
    segmented("Language / 语言", [["en", "English"], ["zh", "中文"]], state.lang, (lang) => { state.lang = lang; remember("lang", lang); draw(); }),
    segmented(t("theme"), [["auto", t("auto")], ["light", t("light")], ["dark", t("dark")]], state.theme, (theme) => { state.theme = theme; remember("theme", theme); setTheme(); draw(); }),
    h("button", { type: "button", class: "print", onclick: () => window.print() }, t("print")),
  );
}

function setTheme() {
  if (state.theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = state.theme;
}

function notices() {
  return DATA.notices.map(({ key, ...values }) => {
    const names = values.names ? listed(values.names, 6) : "";
    return h("p", { class: "notice", role: "note" }, t(`n_${key}`, { ...values, names }));
  });
}

function legend() {
  const shown = SINGLE >= 0 ? [...TRAINED, SINGLE] : TRAINED;
  if (shown.length < 2) return null;
  return h("div", { class: "methods", role: "group", "aria-label": t("methods") }, h("div", { class: "chips" }, shown.map(chip)), h("span", { class: "hint" }, t("chip_hint")));
}

function section([id, fill]) {
  const body = h("div", { class: "body" });
  const number = SECTIONS.filter(([, , wanted]) => wanted()).findIndex(([name]) => name === id) + 1;
  const found = h("section", { id }, h("h2", {}, h("span", { class: "number" }, String(number)), t(`h_${id}`)), body);
  try {
    body.append(...fill().filter(Boolean));
  } catch (error) {
    body.append(empty(t("broken", { error: String(error) }))); // one section must not take the others with it
    setTimeout(() => { throw error; });
  }
  return found;
}

function draw() {
  const wanted = SECTIONS.filter(([, , when]) => when());
  document.documentElement.lang = state.lang === "zh" ? "zh-CN" : "en";
  document.title = `${DATA.name} · mtl_opt`;
  const nav = h("nav", { "aria-label": t("contents") }, wanted.map(([id]) => h("a", { href: `#${id}` }, t(`s_${id}`))));
  const scroll = window.scrollY;
  document.body.replaceChildren(focusRule, tip, header(), nav, h("main", {}, ...notices(), legend(), ...wanted.map(section)), h("footer", {}, t("footer")));
  window.scrollTo(0, scroll);
  drawFocus();
  follow(nav);
}

/** Mark the section that is being read in the navigation. */
function follow(nav) {
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries.filter((e) => e.isIntersecting)) {
      for (const link of nav.children) link.classList.toggle("here", link.getAttribute("href") === `#${entry.target.id}`);
    }
  }, { rootMargin: "-20% 0px -70% 0px" });
  document.querySelectorAll("section").forEach((found) => seen.observe(found));
}

window.addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((d) => { d.open = true; }));
document.addEventListener("keydown", (event) => event.key === "Escape" && (state.pinned.clear(), hideTip(), drawFocus()));
setTheme();
draw();
