"""The comparison as text and as Markdown."""

import pytest

from mtl_opt.report import comparison_markdown, comparison_table
from mtl_opt.report.table import text_width


def results(tasks, combiners=("sum", "pcgrad"), seed=0):
    rows = []
    for combiner, task in [(name, None) for name in combiners] + [("single", task) for task in tasks]:
        metrics = {}
        for name in tasks if task is None else [task]:
            metrics |= {f"eval_{name}_exact_match": 0.5, f"eval_{name}_loss": 1.25}
        run = {"run": f"{combiner}-{task}-{seed}", "combiner": combiner, "seed": seed, "task": task}
        rows.append(
            run
            | {
                "tasks": list(tasks),
                "metrics": metrics,
                "steps_per_second": 5.0,
                "conflict_rate": 0.25 if task is None else None,
            }
        )
    return rows


def table_lines(text):
    return text.split("\n\n")[0].splitlines()


def test_whole_table_of_one_task():
    lines = [line.rstrip() for line in table_lines(comparison_table(results(["qa"])))]
    assert lines == [
        "                 ─── qa ────",
        "combiner  seeds  EM %   loss  Δm EM %  Δm loss %  conflict %  step time",
        "────────  ─────  ────  ─────  ───────  ─────────  ──────────  ─────────",
        "sum           1  50.0  1.250     +0.0       +0.0        25.0      1.00×",
        "pcgrad        1  50.0  1.250     +0.0       +0.0        25.0      1.00×",
        "single        1  50.0  1.250        0          0           –          –",
    ]


@pytest.mark.parametrize("tasks", [["qa", "情感分类"], ["a task with quite a long name", "投诉摘要与核心诉求"]])
def test_columns_are_aligned_whatever_the_script(tasks):
    lines = table_lines(comparison_table(results(tasks)))
    assert len({text_width(line) for line in lines[1:]}) == 1
    ends = [text_width(line[: line.rindex("×") + 1]) for line in lines if "×" in line]
    assert len(set(ends)) == 1


def test_chinese_characters_are_two_columns_wide_and_accents_none():
    assert text_width("情感a") == 5
    assert text_width("cafe\u0301") == 4


def test_a_wide_table_is_continued_below_with_a_task_in_one_piece():
    tasks = [f"task-{i}" for i in range(12)]
    text = comparison_table(results(tasks))
    *blocks, notes = text.split("\n\n")
    assert len(blocks) > 1
    assert "Δm %" in notes
    for block in blocks:
        lines = block.splitlines()
        assert max(map(text_width, lines)) <= 160
        assert lines[1].startswith("combiner")
        assert lines[1].count("EM %") - lines[1].count("Δm EM %") == lines[1].count("loss") - lines[1].count("Δm loss")
    assert [f"─ {task} ─" in text for task in tasks] == [True] * 12


def test_width_can_be_chosen():
    blocks = comparison_table(results(["a", "b", "c"]), max_width=50).split("\n\n")[:-1]
    assert len(blocks) > 1
    assert all(text_width(line) <= 50 for block in blocks for line in block.splitlines())


def test_notes_stand_below_the_table():
    assert comparison_table(results(["qa"])).splitlines()[-1].startswith("Step time: relative to `sum`")


def test_markdown_has_the_same_cells():
    lines = comparison_markdown(results(["qa"])).splitlines()
    assert lines[0] == "| combiner | seeds | qa EM % | qa loss | Δm EM % | Δm loss % | conflict % | step time |"
    assert lines[1] == "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    assert lines[3] == "| pcgrad | 1 | 50.0 | 1.250 | +0.0 | +0.0 | 25.0 | 1.00× |"
    assert lines[5] == ""
    assert all(line.startswith("- ") for line in lines[6:])


def test_markdown_escapes_what_would_end_a_cell():
    assert "a\\|b EM %" in comparison_markdown(results(["a|b"]))
