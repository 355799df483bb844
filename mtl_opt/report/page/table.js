// Tables that sort by any column: click a head, or press Enter on it.
/**
 * columns: [{name, value(row) → number | string | null, cell(row) → node or text, left, help}]
 * rows: anything; method(row) → index of the method whose row it is, or null.
 */
function sortable(id, columns, rows, { method = () => null, sort = null, tall = false, marked = () => false } = {}) {
  const box = h("div", { class: tall ? "scroll tall" : "scroll" });
  const order = state[`sort.${id}`] || sort || { column: -1, down: true };
  const draw = () => box.replaceChildren(tableOf(id, columns, sorted(columns, rows, order), order, redraw, method, marked));
  const redraw = (column) => {
    order.down = order.column === column ? !order.down : typeof firstValue(columns[column], rows) === "number";
    order.column = column;
    state[`sort.${id}`] = order;
    draw();
    box.querySelectorAll("th button")[column]?.focus();
  };
  draw();
  return box;
}

const firstValue = (column, rows) => rows.map((row) => column.value(row)).find((v) => v !== null && v !== undefined);

function sorted(columns, rows, order) {
  if (order.column < 0) return rows;
  const value = columns[order.column].value;
  const sign = order.down ? -1 : 1;
  return rows
    .map((row, place) => [value(row), row, place])
    .sort(([a, , i], [b, , j]) => {
      const none = (v) => v === null || v === undefined || Number.isNaN(v);
      if (none(a) || none(b)) return none(a) - none(b) || i - j; // what has no value stays below
      const by = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
      return sign * by || i - j;
    })
    .map(([, row]) => row);
}

function tableOf(id, columns, rows, order, redraw, method, marked) {
  const heads = columns.map((column, i) =>
    h(
      "th",
      {
        class: column.left ? "left" : null, scope: "col",
        "aria-sort": order.column === i ? (order.down ? "descending" : "ascending") : "none",
      },
      h("button", { type: "button", title: column.help || t("sort_hint"), onclick: () => redraw(i) }, column.name),
    ),
  );
  const body = rows.map((row) => {
    const index = method(row);
    return h(
      "tr",
      { ...(index === null ? {} : ofMethod(index)), class: marked(row) ? "marked" : null },
      columns.map((column) => {
        const cell = column.cell ? column.cell(row) : num(column.value(row));
        if (cell instanceof HTMLTableCellElement) return cell;
        return h("td", { class: column.left ? "left" : null }, cell);
      }),
    );
  });
  return h("table", { id: `table-${id}` }, h("thead", {}, h("tr", {}, heads)), h("tbody", {}, body));
}

/** A cell coloured by its value, relative to `limit`. */
function shaded(value, limit, text, extra = {}) {
  const style = `background:${diverging(value, limit)};color:${inkOn(value, limit)}`;
  return h("td", { style, class: "shaded", ...extra }, text);
}

const methodColumn = () => ({
  name: t("method"),
  left: true,
  value: (i) => DATA.methods[i].label,
  cell: (i) => h("span", { class: "method" }, swatch(i), DATA.methods[i].label),
});
