"""The comparison as text and as Markdown."""

import pytest
from wcwidth import wcswidth

from mtl_opt.report import comparison_markdown, comparison_table


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
                "peak_memory_mb": 512.0,
                "conflict_rate": 0.25 if task is None else None,
            }
        )
    return rows


def table_lines(text):
    return text.split("\n\n")[0].splitlines()


def test_whole_table_of_one_task():
    lines = [line.rstrip() for line in table_lines(comparison_table(results(["qa"])))]
    assert lines == [
        "               ─── qa ────",
        "method  seeds  EM %   loss  Δm EM %  Δm loss %  rank  conflict %  step time  steps/s  peak MiB",
        "──────  ─────  ────  ─────  ───────  ─────────  ────  ──────────  ─────────  ───────  ────────",
        "sum         1  50.0  1.250     +0.0       +0.0  1.50        25.0      1.00×     5.00       512",
        "pcgrad      1  50.0  1.250     +0.0       +0.0  1.50        25.0      1.00×     5.00       512",
        "single      1  50.0  1.250        0          0     –           –          –     5.00       512",
    ]


@pytest.mark.parametrize("tasks", [["qa", "情感分类"], ["a task with quite a long name", "投诉摘要与核心诉求"]])
def test_columns_are_aligned_whatever_the_script(tasks):
    lines = table_lines(comparison_table(results(tasks), max_width=400))
    assert len({wcswidth(line) for line in lines[1:]}) == 1
    ends = [wcswidth(line[: line.rindex("×") + 1]) for line in lines if "×" in line]
    assert len(set(ends)) == 1


def test_a_wide_table_is_continued_below_with_a_task_in_one_piece():
    tasks = [f"task-{i}" for i in range(12)]
    text = comparison_table(results(tasks))
    *blocks, notes, transfer, verdict = text.split("\n\n")
    assert len(blocks) > 1
    assert "Δm %" in notes
    assert transfer.startswith("Transfer: ")
    assert "no test can tell" in verdict
    for block in blocks:
        lines = block.splitlines()
        assert max(map(wcswidth, lines)) <= 160
        assert lines[1].startswith("method")
        means = lines[0].count("macro")
        assert lines[1].count("EM %") - means == lines[1].count("loss")  # Δm EM % and Δm loss % stand together
    assert [f"─ {task} ─" in text for task in tasks] == [True] * 12


def test_width_can_be_chosen():
    blocks = comparison_table(results(["a", "b", "c"]), max_width=50).split("\n\n")[:-3]
    assert len(blocks) > 1
    assert all(wcswidth(line) <= 50 for block in blocks for line in block.splitlines())


def test_notes_stand_below_the_table():
    notes, transfer, verdict = comparison_table(results(["qa"])).split("\n\n")[-3:]
    assert notes.splitlines()[-1].startswith("Step time: relative to `sum`")
    assert transfer.splitlines()[-1].split() == ["pcgrad", "+0.0"]
    assert verdict.splitlines()[0].startswith("`sum` and `pcgrad` share the highest mean Δm EM %, but with 1 paired")


def test_markdown_has_the_same_cells():
    lines = comparison_markdown(results(["qa"])).splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert cells[0] == [
        "method", "seeds", "qa EM %", "qa loss", "Δm EM %", "Δm loss %", "rank", "conflict %", "step time", "steps/s",
        "peak MiB",
    ]  # fmt: skip
    assert [cell.strip("-") for cell in cells[1]] == [":"] * 11
    assert (cells[1][0][0], {cell[-1] for cell in cells[1][1:]}) == (":", {":"})
    assert cells[3] == ["pcgrad", "1", "50.0", "1.250", "+0.0", "+0.0", "1.50", "25.0", "1.00×", "5.00", "512"]
    assert lines[5] == ""
    assert all(line.startswith(("- ", "|", "Transfer: ")) for line in lines[6:] if line)
    assert ["pcgrad", "+0.0"] in cells


@pytest.mark.parametrize("tasks", [["qa", "情感分类"], ["投诉摘要与核心诉求", "cafe\u0301"]])
def test_markdown_is_aligned_whatever_the_script(tasks):
    table = comparison_markdown(results(tasks)).split("\n\n")[0].splitlines()
    assert len({wcswidth(line) for line in table}) == 1


def test_markdown_escapes_what_would_end_a_cell():
    assert "a\\|b EM %" in comparison_markdown(results(["a|b"]))
