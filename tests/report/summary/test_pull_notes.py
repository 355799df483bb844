"""Rows and pull in the notes of a summary."""

from mtl_opt.report.summary.assembly import pull_notes


def line(method, pull, role="method"):
    return {"role": role, "method": method, "combiner": "sum", "rows": {"qa": 30, "情绪": 10}, "pull": pull}


def test_methods_that_agree_share_a_sentence_and_baselines_have_none():
    even, uneven = {"qa": 0.5, "情绪": 0.5}, {"qa": 0.75, "情绪": 0.25}
    lines = [line("sum", even), line("sum", even), line("pcgrad", even), line("weighted", uneven)]
    assert pull_notes([*lines, line("single-task", even, "baseline"), {"role": "method", "combiner": "old"}]) == [
        "Share of the rows / pull at the shared parameters under `sum`, `pcgrad`: qa 75.0% / 50.0%, 情绪 25.0% "
        "/ 50.0%.",
        "Share of the rows / pull at the shared parameters under `weighted`: qa 75.0% / 75.0%, 情绪 25.0% / 25.0%.",
    ]
