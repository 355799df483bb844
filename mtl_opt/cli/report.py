"""`mtl-opt report` and `predictions`: finished runs as a page, as figures for papers, as answers side by side."""

import argparse
from pathlib import Path
from typing import Any

from mtl_opt.cli.common import print_json

NOTICES = {
    "unfinished": "Half-finished: runs without a result yet, left out here: {names} ({n} in all).",
    "running": "This run has not finished: step {step} of {total}.",
    "torn": "The last line of results.jsonl is torn and was left out.",
    "non_finite": "Not finite, shown and in no mean: {names}.",
}
"""Notices of the report that are worth a line on the terminal too."""


def add_report(verbs: Any) -> None:
    """Add `report` to the command line."""
    verb = verbs.add_parser("report", help="write report.html on a comparison or a run: one file, opens from disk")
    verb.add_argument("folder", help="output_dir of `mtl-opt compare`, or of one run of `mtl-opt train`")
    verb.add_argument("--plots", action="store_true", help="also plots/*.png and *.pdf for papers")
    verb.set_defaults(run=_report)


def add_predictions(verbs: Any) -> None:
    """Add `predictions` to the command line."""
    verb = verbs.add_parser("predictions", help="answers of several runs side by side")
    verb.add_argument("folders", nargs="+", metavar="RUN", help="folders of runs, such as those of a comparison")
    verb.add_argument("--task", help="rows of this task only")
    verb.add_argument("--different", action="store_true", help="rows on which the runs differ only")
    verb.add_argument("--limit", type=int, metavar="N", help="show the first N rows only")
    verb.add_argument("--json", action="store_true", help="one JSON list on stdout")
    verb.set_defaults(run=_predictions)


def _report(options: argparse.Namespace) -> None:
    """Write the report, and print where it is and what is missing in it."""
    from mtl_opt.report.page.contents import contents
    from mtl_opt.report.page.html import write_page
    from mtl_opt.report.read.folder import listed, read_folder

    folder = Path(options.folder)
    data = contents(read_folder(folder))
    paths = []
    if options.plots:
        from mtl_opt.report.figures.files import write_plots

        paths = write_plots(data, folder)
    print(f"Report: {write_page(data, folder)}")
    if paths:
        print(f"Plots:  {len(paths)} files in {paths[0].parent}")
    for notice in data["notices"]:
        if notice["key"] in NOTICES:
            print(NOTICES[notice["key"]].format(**notice | {"names": listed(notice.get("names", []))}))


def _predictions(options: argparse.Namespace) -> None:
    """Print answers of several runs side by side."""
    from mtl_opt.report.read.predictions import answers_text, side_by_side, to_json

    rows = side_by_side([Path(folder) for folder in options.folders], options.task, options.different)
    limit = None if options.limit is None else max(0, options.limit)
    if options.json:
        print_json(to_json(rows[:limit]))
    else:
        print(answers_text(rows, limit))
