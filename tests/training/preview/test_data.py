"""`mtl-opt data` as a user meets it: every bad row, tables and JSON that agree with what training does."""

import json
from collections import Counter
from pathlib import Path

import pytest
from tiny_run import TASKS, config_of, write_config

from mtl_opt import cli
from mtl_opt.batch import IGNORE_INDEX
from mtl_opt.data import MIXINGS
from mtl_opt.data.read.rows import Row
from mtl_opt.data.statistics import text_statistics
from mtl_opt.training.preview.data import stretches
from mtl_opt.training.setup.data import prepare
from mtl_opt.training.setup.sampler import build_sampler


@pytest.fixture
def call(settings, tmp_path, capsys):
    """Run a verb below `data` and return its code, stdout and stderr."""

    def run(what, *arguments):
        path = write_config(tmp_path / "配置.yaml", settings)
        capsys.readouterr()
        code = cli.main(["data", what, path, *arguments])
        return code, *capsys.readouterr()

    return run


def spoil(settings, tmp_path):
    path = tmp_path / "bad.jsonl"
    good = Path(settings["tasks"]["qa"]["file"]).read_text(encoding="utf-8")
    path.write_text(good + '{"instruction": "x"}\n{\n{"instruction": "x", "output": ""}\n', encoding="utf-8")
    settings["tasks"]["qa"]["file"] = str(path)


def test_validate_names_every_bad_row_and_exits_with_2(call, settings, tmp_path):
    assert call("validate")[0] == 0
    spoil(settings, tmp_path)
    settings["tasks"]["anger"]["eval_file"] = str(tmp_path / "no.jsonl")
    code, out, err = call("validate")
    assert code == 2
    assert [f"line {n}" in line for n, line in zip((15, 16, 17), out.splitlines(), strict=False)] == [True] * 3
    assert "no.jsonl` does not exist" in out
    assert err.splitlines()[-1] == "mtl-opt: error: 4 problems found in the data."
    code, out, _ = call("validate", "--json")
    assert code == 2
    assert len(json.loads(out)["problems"]) == 4


def test_validate_notes_rows_that_are_shortened(call):
    code, out, _ = call("validate", "cutoff_len=20")
    assert code == 0
    assert "Task 摘要: 6 rows shortened to cutoff_len 20" in out


def test_validate_sees_a_mixing_that_does_not_fit(call):
    code, out, _ = call("validate", "mixing=ratios", "ratios={qa: 1}")
    assert code == 2
    assert "task `摘要` has no share" in out


def test_skip_bad_rows_counts_and_lists_what_it_left_out(call, settings, tmp_path, caplog):
    spoil(settings, tmp_path)
    assert call("plan")[0] == 2
    code, out, _ = call("plan", "--skip_bad_rows", "--json", "--steps", "2")
    assert code == 0
    assert "3 bad rows were left out" in caplog.text
    assert "line 16: broken JSON" in caplog.text
    assert json.loads(out)["tasks"]["qa"]["rows"] == 4


@pytest.mark.parametrize("mixing", ["balanced", "sqrt", "homogeneous"])
def test_plan_counts_what_the_sampler_of_a_run_delivers(call, settings, mixing):
    code, out, _ = call("plan", "--steps", "7", "--json", f"mixing={mixing}", "gradient_accumulation_steps=2")
    assert code == 0
    found = json.loads(out)["tasks"]
    config = config_of(settings, mixing=mixing, gradient_accumulation_steps=2)
    prepared = prepare(config)
    sampler, _ = build_sampler(config, prepared)
    rows, tokens = Counter(), Counter()
    for _ in range(14):
        for task, indices in sampler.draw().items():
            rows[task] += len(indices)
            tokens[task] += sum(len(prepared.train[task][i].input_ids) for i in indices)
    for task in TASKS:
        assert found[task] == {
            "rows": rows[task],
            "tokens": tokens[task],
            "share": rows[task] / 84,
            "pull": pytest.approx(rows[task] / 84),  # the same rows in every step, so that both agree
            "epochs": rows[task] / len(prepared.train[task]),
        }


def test_stats_describe_every_task_under_every_mixing(call):
    code, out, _ = call("stats", "--json", "max_steps=-1", "num_train_epochs=2", "cutoff_len=20")
    assert code == 0
    found = json.loads(out)
    assert list(found["tasks"]) == list(TASKS)
    qa, summary = found["tasks"]["qa"], found["tasks"]["摘要"]
    assert (qa["rows"], qa["eval_rows"], summary["shortened"]) == (14, 3, 6)
    assert set(qa["shares"]) == set(MIXINGS)
    assert qa["shares"]["proportional"] == pytest.approx(14 / 23, abs=0.02)
    assert qa["shares"]["ratios"] is None
    assert [qa["epochs"] * 14, summary["epochs"] * 6] == pytest.approx([found["steps"] * 2] * 2, abs=0.01)
    code, out, _ = call("stats")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[:4]] == ["task", *TASKS]


@pytest.mark.parametrize(
    "own",
    [
        {"seeds": [3, 4]},
        {"budget": 20},
        {"jobs": 2},
        {"search_seeds": [5]},
        {"norm_matched": True, "jobs": 1},
        {"norm_matched": "both"},
    ],
)
def test_any_key_of_a_comparison_makes_the_file_one_of_a_comparison(call, settings, own):
    settings |= own
    code, out, err = call("stats", "--json")
    assert code == 0, err
    assert list(json.loads(out)["tasks"]) == list(TASKS)


def test_show_marks_exactly_what_is_learnt(call, settings):
    code, out, _ = call("show", "--task", "摘要", "--rows", "2", "--json")
    assert code == 0
    rows = json.loads(out)["rows"]
    prepared = prepare(config_of(settings))
    assert len(rows) == 2
    for i, row in enumerate(rows):
        encoded = prepared.train["摘要"][i]
        assert row["input_ids"] == encoded.input_ids
        assert row["learnt"] == [label != IGNORE_INDEX for label in encoded.labels]
        answer = prepared.train_rows["摘要"][i].output
        assert row["text"].endswith(f"⟦{answer}</s>\n⟧")
    code, out, _ = call("show", "--task", "摘要")
    assert code == 0
    assert "⟦" in out
    code, _, err = call("show", "--task", "qu")
    assert code == 2
    assert "Did you mean `qa`" in err


def test_stretches_cover_a_row():
    assert list(stretches([False, False, True, False])) == [(0, 2), (2, 3), (3, 4)]


def row(text, output="a"):
    return Row(text, "", output, None, "f", 1)


def test_duplicates_labels_and_diversity_are_counted():
    base = "The customer called three times about the same card and nobody ever called back, which is a shame. "
    rows = [row(base + "one"), row(base + "one"), row(base + "two"), row("客户三次来电，没有人回复。", "b")]
    found = text_statistics(rows)
    assert (found["near_duplicates"], found["near_duplicates_of"], found["labels"]) == (1, 3, 2)
    assert found["label_entropy"] == pytest.approx(0.811, abs=1e-3)
    assert 0 < found["distinct_1"] < found["distinct_3"] <= 1


def test_held_out_rows_near_training_rows_are_counted():
    base = "The customer called three times about the same card and nobody ever called back, which is a shame. "
    found = text_statistics([row(base + "one")], [row(base + "two"), row("Something else entirely, in other words.")])
    assert (found["held_out_near"], found["held_out_near_of"]) == (1, 2)


def test_the_same_file_to_train_and_to_measure_is_said(call, settings, caplog):
    settings["tasks"]["qa"]["eval_file"] = settings["tasks"]["qa"]["file"]
    code, out, _ = call("stats", "--json")
    assert code == 0
    assert json.loads(out)["tasks"]["qa"]["held_out_trained"] == 14
    assert "Task qa: 14 of its 14 held-out rows are training rows too" in caplog.text
    code, _, err = call("stats", "deduplicate=exact")
    assert code == 2
    assert "leaves nothing to train on: all of its 14 training rows repeat" in err
