"""Results as something to read: a summary of plain numbers, and tables of it."""

from mtl_opt.report.summary.assembly import summarise
from mtl_opt.report.summary.numbers import Comparison, MethodSummary, Score, Summary
from mtl_opt.report.tables.files import write_tables
from mtl_opt.report.tables.text import comparison_markdown, comparison_table
from mtl_opt.results import read_comparison

__all__ = [
    "Comparison",
    "MethodSummary",
    "Score",
    "Summary",
    "comparison_markdown",
    "comparison_table",
    "read_comparison",
    "summarise",
    "write_tables",
]
