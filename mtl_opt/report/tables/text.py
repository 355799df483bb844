"""The comparison of methods as a table, for a terminal or as Markdown."""

from collections.abc import Sequence
from itertools import groupby

from tabulate import DataRow, Line, TableFormat, tabulate
from wcwidth import wcswidth  # tabulate measures with it too: a Chinese character takes two terminal columns

from mtl_opt.report.tables.layout import Column, ComparisonTable, Results, lay_out
from mtl_opt.results import SINGLE

TRANSFER = (
    "Transfer: change of every task's main metric against its single-task baseline, %; below 0 is negative transfer "
    "(▼ worse, ▲ better, by paired t-tests, Holm)."
)
RULED = TableFormat(
    lineabove=Line("", "─", "  ", ""), linebelowheader=None, linebetweenrows=None, linebelow=None,
    headerrow=DataRow("", "  ", ""), datarow=DataRow("", "  ", ""), padding=0, with_header_hide=None,
)  # fmt: skip
"""A rule above the rows, two spaces between the columns."""


def comparison_table(results: Results, max_width: int = 160) -> str:
    """Format a comparison for a terminal.

    Args:
        results: Lines of `results.jsonl`, or their `Summary` where it is there already.
        max_width: Terminal columns; a wider table is continued below, the columns of a task staying together.

    Returns:
        The table, with the lines that explain it below.
    """
    table = lay_out(results)
    paragraphs = [columns_text(table.methods, table.columns, max_width), "\n".join(table.notes)]
    if table.transfer:
        paragraphs.append(TRANSFER + "\n" + columns_text(trained_methods(table), table.transfer, max_width))
    return "\n\n".join([*paragraphs, "\n".join(table.verdicts)])


def trained_methods(table: ComparisonTable) -> list[str]:
    """List the rows of the table of transfer."""
    return [name for name in table.methods if name != SINGLE]


def columns_text(rows: Sequence[str], columns: Sequence[Column], max_width: int) -> str:
    """Format columns for a terminal, in as many blocks below each other as the width demands."""
    names = Column("", "method", list(rows))
    blocks: list[list[list[Column]]] = [[[names]]]
    # Columns of one task are one part, and so is every column that belongs to no task.
    parts = [list(part) for group, part in groupby(columns, key=lambda column: column.group or id(column))]
    for part in parts:
        if len(blocks[-1]) > 1 and wcswidth(block_lines([*blocks[-1], part])[0]) > max_width:
            blocks.append([[names]])
        blocks[-1].append(part)
    return "\n\n".join("\n".join(block_lines(block)).rstrip() for block in blocks)


def block_lines(parts: Sequence[Sequence[Column]]) -> list[str]:
    """Align columns: the titles of groups where there are any, the heads, a rule, one line per method."""
    titles, heads = [], []
    for part in parts:
        widths = [max(map(wcswidth, (column.name, *column.cells))) for column in part]
        title = f" {part[0].group} " if part[0].group else ""
        columns_width = sum(widths) + 2 * (len(part) - 1)
        title_width = max(columns_width, wcswidth(title))
        space = title_width - wcswidth(title)
        fill = "─" if title else " "
        titles.append(fill * (space // 2) + title + fill * (space - space // 2))
        first, *others = (column.name for column in part)
        if title_width > columns_width:  # the head of its first column makes room for it
            first = " " * (widths[0] + title_width - columns_width - wcswidth(first)) + first
        heads += [first, *others]
    columns = [column.cells for part in parts for column in part]
    rule, head, *rows = tabulate(
        [heads, *zip(*columns, strict=True)], tablefmt=RULED, colalign=alignment(len(columns)),
        disable_numparse=True, preserve_whitespace=True,
    ).splitlines()  # fmt: skip
    lines = [head, rule, *rows]
    return ["  ".join(titles), *lines] if any(part[0].group for part in parts) else lines


def alignment(num_columns: int) -> list[str]:
    """Align the names of methods to the left and numbers to the right."""
    return ["left", *["right"] * (num_columns - 1)]


def comparison_markdown(results: Results) -> str:
    """Format a comparison as Markdown.

    Args:
        results: Lines of `results.jsonl`, or their `Summary` where it is there already.

    Returns:
        A Markdown table, with the lines that explain it as a list below.
    """
    table = lay_out(results)
    paragraphs = [markdown_table(table.methods, table.columns), "\n".join(f"- {note}" for note in table.notes)]
    if table.transfer:
        paragraphs += [TRANSFER, markdown_table(trained_methods(table), table.transfer)]
    return "\n\n".join([*paragraphs, "\n".join(f"- {sentence}" for sentence in table.verdicts)])


def markdown_table(names: Sequence[str], columns: Sequence[Column]) -> str:
    """Format columns as a Markdown table."""
    shown = [Column("", "method", list(names)), *columns]
    heads = [f"{column.group} {column.name}".strip() for column in shown]
    rows = [[column.cells[index] for column in shown] for index in range(len(names))]
    head, *body = [[cell.replace("|", "\\|") for cell in row] for row in (heads, *rows)]
    return tabulate(body, head, tablefmt="pipe", colalign=alignment(len(shown)), disable_numparse=True)
