"""`mtl-opt report DIR`: a folder of results in, `report.html` out; with `--plots` figures for papers too."""

import argparse
from pathlib import Path
from typing import Any


def add_report_verb(verbs: Any) -> None:
    """Describe the verb.

    Args:
        verbs: Takes the verb `report`.
    """
    report = verbs.add_parser("report", help="write report.html on a comparison or a run: one file, opens from disk")
    report.add_argument("folder", help="output_dir of `mtl-opt compare`, or of one run of `mtl-opt train`")
    report.add_argument("--plots", action="store_true", help="also plots/*.png and *.pdf for papers (matplotlib)")
    report.set_defaults(run=_report)


def _report(options: argparse.Namespace) -> None:
    """Write the report, and say where it is and what is missing in it."""
    from mtl_opt.report.html import write_report

    folder = Path(options.folder)
    print(f"Report: {write_report(folder)}")
