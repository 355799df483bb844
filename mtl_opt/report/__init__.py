"""Results as something to read: a summary of plain numbers, and tables of it."""

from mtl_opt.report.pooling import read_comparison
from mtl_opt.report.summarise import summarise
from mtl_opt.report.summary import Comparison, MethodSummary, Score, Summary
from mtl_opt.report.table import comparison_markdown, comparison_table
from mtl_opt.report.table_files import write_tables

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
