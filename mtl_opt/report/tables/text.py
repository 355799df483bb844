"""The comparison of combiners as a table, for a terminal or as Markdown."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any
from unicodedata import category, east_asian_width

from mtl_opt.report.tables.layout import SINGLE, Column, compare

TRANSFER = (
    "Transfer: change of every task's main metric against its single-task baseline, %; below 0 is negative transfer "
    "(▼ worse, ▲ better, by paired t-tests, Holm)."
)


def comparison_table(results: Sequence[Mapping[str, Any]], max_width: int = 160) -> str:
    """Write the comparison for a terminal.

    Args:
        results: Lines of `results.jsonl`.
        max_width: Terminal columns; a wider table is continued below, the columns of a task staying together.

    Returns:
        The table, with the lines that explain it below.
    """
    table = compare(results)
    text = columns_text(table.combiners, table.columns, max_width) + "\n\n" + "\n".join(table.notes)
    if table.transfer:
        methods = [name for name in table.combiners if name != SINGLE]
        text += "\n\n" + TRANSFER + "\n" + columns_text(methods, table.transfer, max_width)
    return text + "\n\n" + "\n".join(table.verdicts)


def columns_text(rows: Sequence[str], columns: Sequence[Column], max_width: int) -> str:
    """Write columns for a terminal."""
    names = Column("", "method", list(rows))
    blocks: list[list[list[Column]]] = [[[names]]]
    parts = [list(part) for group, part in groupby(columns, key=lambda column: column.group or id(column))]
    for part in parts:
        if len(blocks[-1]) > 1 and text_width(block_lines([*blocks[-1], part])[0]) > max_width:
            blocks.append([[names]])
        blocks[-1].append(part)
    return "\n\n".join("\n".join(block_lines(block)).rstrip() for block in blocks)


def block_lines(parts: Sequence[Sequence[Column]]) -> list[str]:
    """Align columns."""
    heads, lines = [], None
    for index, part in enumerate(parts):
        widths = [max(map(text_width, [column.name, *column.cells])) for column in part]
        total = sum(widths) + 2 * (len(part) - 1)
        title = f" {part[0].group} " if part[0].group else ""
        missing = max(0, text_width(title) - total)
        widths[0] += missing
        heads.append(centre(title, total + missing, "─" if title else " "))
        for column, width in zip(part, widths, strict=True):
            cells = [pad(cell, width, left=index == 0) for cell in [column.name, *column.cells]]
            cells.insert(1, "─" * width)
            lines = cells if lines is None else [f"{line}  {cell}" for line, cell in zip(lines, cells, strict=True)]
    assert lines is not None
    return ["  ".join(heads), *lines] if any(part[0].group for part in parts) else lines


def text_width(text: str) -> int:
    """Count the terminal columns of a text."""
    return sum(character_width(char) for char in text)


def character_width(char: str) -> int:
    """Count the terminal columns of a character."""
    if category(char) in {"Mn", "Me", "Cf"}:
        return 0
    return 2 if east_asian_width(char) in {"W", "F"} else 1


def pad(text: str, width: int, left: bool) -> str:
    """Fill a text up with spaces."""
    space = " " * (width - text_width(text))
    return text + space if left else space + text


def centre(text: str, width: int, fill: str) -> str:
    """Fill a text up on both sides."""
    space = width - text_width(text)
    return fill * (space // 2) + text + fill * (space - space // 2)


def comparison_markdown(results: Sequence[Mapping[str, Any]]) -> str:
    """Write the comparison as Markdown.

    Args:
        results: Lines of `results.jsonl`.

    Returns:
        A Markdown table, with the lines that explain it as a list below.
    """
    table = compare(results)
    lines = [*markdown_lines(table.combiners, table.columns), "", *(f"- {note}" for note in table.notes)]
    if table.transfer:
        methods = [name for name in table.combiners if name != SINGLE]
        lines += ["", TRANSFER, "", *markdown_lines(methods, table.transfer)]
    return "\n".join([*lines, "", *(f"- {sentence}" for sentence in table.verdicts)])


def markdown_lines(names: Sequence[str], columns: Sequence[Column]) -> list[str]:
    """Write columns as a Markdown table."""
    shown = [Column("", "method", list(names)), *columns]
    rows = [[f"{column.group} {column.name}".strip() for column in shown], ["---", *["---:"] * len(columns)]]
    rows += [[column.cells[index] for column in shown] for index in range(len(names))]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
