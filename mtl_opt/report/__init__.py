"""Results as something to read: tables now, plots and pages later."""

from mtl_opt.report.table import comparison_markdown, comparison_table

__all__ = ["comparison_markdown", "comparison_table"]
