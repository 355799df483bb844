// 8. How to get these numbers again.
function reproduceSection() {
  const { commands, versions, config, differences, data_hash: hash } = DATA.reproduce;
  const parts = [card(t("commands"), t("commands_note"), ...commands.map(commandLine))];
  const rows = Object.entries(versions);
  parts.push(
    card(
      t("versions"),
      hash ? t("data_hash", { hash }) : t("no_hash"),
      rows.length ? h("table", { class: "plain" }, h("tbody", {}, rows.map(([name, values]) => h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, values.join(" · ")))))) : empty(t("no_versions")),
    ),
  );
  if (config) parts.push(h("details", { class: "card" }, h("summary", {}, t(DATA.kind === "run" ? "config" : "config_shared")), copyButton(config), h("pre", {}, config)));
  parts.push(h("details", { class: "card", open: DATA.runs.length <= 12 }, h("summary", {}, t("runs", { n: DATA.runs.length })), runsTable(differences)));
  return parts;
}

function commandLine(command) {
  return h("div", { class: "command" }, h("code", {}, command), copyButton(command));
}

function copyButton(text) {
  const button = h("button", { type: "button", class: "copy" }, t("copy"));
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = h("textarea", { value: text, class: "offscreen" }); // pages from disk may have no clipboard
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    button.textContent = t("copied");
    setTimeout(() => { button.textContent = t("copy"); }, 1200);
  });
  return button;
}

function runsTable(differences) {
  const metrics = [...new Set(DATA.runs.flatMap((r) => Object.keys(r.metrics)))];
  const columns = [
    { name: t("run"), left: true, value: (r) => r.run },
    { name: t("role"), left: true, value: (r) => t(`role_${r.role}`), cell: (r) => t(`role_${r.role}`) },
    { name: t("seed"), value: (r) => r.seed, cell: (r) => String(r.seed) },
    ...Object.keys(differences).map((key) => ({ name: key, left: true, value: (r) => differences[key][r.run] ?? null, cell: (r) => differences[key][r.run] ?? "–" })),
    ...metrics.map((key) => ({ name: key.replace(/^eval_/, ""), value: (r) => r.metrics[key] ?? null, cell: (r) => metricCell(r, key) })),
    { name: t("run_time"), value: (r) => r.train_runtime, cell: (r) => num(r.train_runtime, 1) },
  ];
  return sortable("runs", columns, DATA.runs, { tall: true, method: (r) => INDEX.get(r.method) ?? null, marked: (r) => r.non_finite.length > 0 });
}

function metricCell(run, key) {
  if (run.metrics[key] !== null && run.metrics[key] !== undefined) return num(run.metrics[key]);
  const bad = run.non_finite.find((text) => text.startsWith(`${key}:`));
  return bad ? `⚠ ${bad.slice(key.length + 1).trim()}` : "–";
}
