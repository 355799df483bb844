"""`mtl-opt report DIR`: a folder of results in, `report.html` out; with `--plots` figures for papers too."""

import argparse
from pathlib import Path
from typing import Any

SAID = {
    "unfinished": "Half-finished: runs without a result yet, left out here: {names} ({n} in all).",
    "running": "This run has not finished: step {step} of {total}.",
    "torn": "The last line of results.jsonl is torn and was left out.",
    "non_finite": "Not finite, shown and in no mean: {names}.",
}
"""Notices of the report that are worth a line on the terminal too."""


def add_report_verb(verbs: Any) -> None:
    """Describe the verb."""
    report = verbs.add_parser("report", help="write report.html on a comparison or a run: one file, opens from disk")
    report.add_argument("folder", help="output_dir of `mtl-opt compare`, or of one run of `mtl-opt train`")
    report.add_argument("--plots", action="store_true", help="also plots/*.png and *.pdf for papers (matplotlib)")
    report.set_defaults(run=_report)


def _report(options: argparse.Namespace) -> None:
    """Write the report, and say where it is and what is missing in it."""
    from mtl_opt.report.page.contents import contents
    from mtl_opt.report.page.html import write_page
    from mtl_opt.report.read.folder import listed, read_folder

    folder = Path(options.folder)
    data = contents(read_folder(folder))
    paths = []
    if options.plots:
        from mtl_opt.report.figures.figures import write_plots

        paths = write_plots(data, folder)
    print(f"Report: {write_page(data, folder)}")
    if paths:
        print(f"Plots:  {len(paths)} files in {paths[0].parent}")
    for notice in data["notices"]:
        if notice["key"] in SAID:
            print(SAID[notice["key"]].format(**notice | {"names": listed(notice.get("names", []))}))
