"""One line of `conflict.jsonl`: what is averaged, what is of the last step, and that it is plain JSON."""

import json
from dataclasses import replace
from math import nan

import pytest
import torch

from mtl_opt.monitor import ConflictLog, ShadowReading, StepEvent, WindowReading, diagnose, diagnosis_scalars
from mtl_opt.monitor.conflict_line import all_cosines

TASKS = ["qa", "情感 分类"]
KEYS = [
    "step", "tasks", "cosines", "magnitude_similarity", "curvature_bound", "condition_number", "conflict_rate",
    "shares", "corrected", "layers", "shadows",
]  # fmt: skip


def event(step=1, gramian=((4.0, -1.0), (-1.0, 1.0)), weights=(1.0, 1.0), **changes):
    known = {"losses": torch.tensor([2.0, 3.0]), "counts": torch.ones(2), "learning_rate": 0.1, "grad_norm": 1.0}
    own = None if weights is None else torch.tensor(weights)
    return StepEvent(step=step, gramian=torch.tensor(gramian), weights=own, **{**known, **changes})


def test_the_line_has_the_keys_of_the_contract_and_is_json():
    blocks = torch.eye(2).expand(4, 2, 2) + 0.01 * torch.randn(4, 2, 2, generator=torch.Generator().manual_seed(0))
    shadows = {"pcgrad": ShadowReading(torch.tensor([1.0, 2.0]), False), "x": ShadowReading(None, True, "出错了")}
    window = WindowReading(blocks, torch.full((4, 2), 3.0), 40)
    found = event(shadows=shadows, window=window, layer_gramians={"layers.0": torch.eye(2)})
    line = json.loads(json.dumps(diagnose([found], TASKS), allow_nan=False, ensure_ascii=False))
    assert list(line) == KEYS
    assert line["tasks"] == TASKS
    assert set(line["corrected"]) == {"cosines", "low", "high", "verdict", "signal_to_noise", "steps"}
    assert line["corrected"]["steps"] == 40
    assert line["corrected"]["verdict"][0][0] is None
    assert line["layers"] == {"layers.0": [[1.0, 0.0], [0.0, 1.0]]}
    assert set(line["shadows"]["pcgrad"]) == {"weights", "angle", "change", "on_this_trajectory", "note"}
    failed = {"weights": None, "angle": None, "change": None, "on_this_trajectory": True, "note": "出错了"}
    assert line["shadows"]["x"] == failed


def test_numbers_are_averaged_over_the_steps_and_ratios_are_medians():
    gramians = [((4.0, c), (c, 1.0)) for c in (-1.0, 0.0, 1.9)]
    line = diagnose([event(step=i + 1, gramian=g) for i, g in enumerate(gramians)], TASKS)
    assert line["step"] == 3
    assert line["cosines"][0][1] == pytest.approx((-0.5 + 0 + 0.95) / 3, rel=1e-4)
    assert line["magnitude_similarity"][0][1] == pytest.approx(0.8)
    assert line["conflict_rate"] == pytest.approx(1 / 3, rel=1e-4)
    assert line["condition_number"] == pytest.approx(((5 + 13**0.5) / (5 - 13**0.5)) ** 0.5, rel=1e-4)  # of cos -0.5
    shares = [(4 - 1) / 3, 4 / 5, (4 + 1.9) / 8.8]
    assert line["shares"][0] == pytest.approx(sum(shares) / 3, rel=1e-4)


def test_shadows_are_compared_with_the_step_that_was_taken():
    shadows = {"same": ShadowReading(torch.ones(2), False), "one": ShadowReading(torch.tensor([0.0, 1.0]), False)}
    line = diagnose([event(gramian=((4.0, 0.0), (0.0, 4.0)), shadows=shadows, max_grad_norm=1.0)], TASKS)
    assert line["shadows"]["same"]["angle"] == 0
    assert line["shadows"]["one"]["angle"] == pytest.approx(45)
    # |g2| = 2 is clipped to 1: -0.1 * 4 / 2
    assert line["shadows"]["one"]["change"] == pytest.approx([0, -0.2])


def test_an_update_without_weights_has_angles_and_shares_through_its_products():
    # rows (2, 0, 0) and (0, 1, 0), update (1, 0, 1)
    found = event(gramian=((4.0, 0.0), (0.0, 1.0)), weights=None, products=torch.tensor([2.0, 0.0]), update_norm=2**0.5)
    line = diagnose([replace(found, shadows={"first": ShadowReading(torch.tensor([1.0, 0.0]), False)})], TASKS)
    assert line["shares"] == pytest.approx([0.5, 0])  # the other half lies outside the rows
    assert line["shadows"]["first"]["angle"] == pytest.approx(45)
    unknown = diagnose([event(weights=None, shadows={"a": ShadowReading(torch.ones(2), False)})], TASKS)
    assert unknown["shares"] == [None, None]
    assert unknown["shadows"]["a"]["angle"] is None


def test_an_absent_task_is_null():
    known = {"losses": torch.tensor([1.0, nan]), "counts": torch.tensor([3.0, 0.0])}
    shadows = {"a": ShadowReading(torch.tensor([1.0, 0.0]), False)}
    absent = event(gramian=((4.0, 0.0), (0.0, 0.0)), weights=(1.0, 0.0), shadows=shadows, **known)
    line = diagnose([absent], TASKS)
    assert line["cosines"] == [[1.0, None], [None, None]]
    assert line["conflict_rate"] is None
    assert line["shares"] == [1.0, 0.0]
    assert line["shadows"]["a"]["change"] == [pytest.approx(-0.4), None]
    assert diagnosis_scalars(line, TASKS) == {"condition_number": 1.0, "share_qa": 1.0, "share_情感 分类": 0.0}


def test_skipped_steps_count_for_nothing():
    nothing = event(step=2, gramian=((0.0, 0.0), (0.0, 0.0)), weights=None, skipped=True)
    assert diagnose([nothing], TASKS) is None
    assert diagnose([], TASKS) is None
    assert diagnose([event(), nothing], TASKS) == diagnose([event()], TASKS)
    assert all_cosines([nothing]).numel() == 0


def test_scalars_take_what_is_defined():
    blocks = torch.eye(2).expand(4, 2, 2).clone()
    blocks[:, 0, 1] = blocks[:, 1, 0] = 0.5
    blocks = blocks * torch.tensor([1.0, 1.1, 0.9, 1.0])[:, None, None]
    line = diagnose([event(window=WindowReading(blocks, torch.full((4, 2), 3.0), 40))], TASKS)
    found = diagnosis_scalars(line, TASKS)
    assert found["corrected_cos_qa_情感 分类"] == pytest.approx(0.5)
    assert found["snr_qa"] == pytest.approx(0.5)
    line["corrected"]["cosines"][0][1] = None
    assert "corrected_cos_qa_情感 分类" not in diagnosis_scalars(line, TASKS)


def test_histograms_get_every_pair_of_every_step():
    found = all_cosines([event(), event(gramian=((1.0, 1.0), (1.0, 1.0))), event(gramian=((1.0, 0.0), (0.0, 0.0)))])
    assert found.tolist() == pytest.approx([-0.5, 1.0])


def test_a_resumed_log_drops_later_and_torn_lines(tmp_path):
    path = tmp_path / "运行" / "conflict.jsonl"
    log = ConflictLog(path)
    for step in (10, 20, 30):
        log.write({"step": step, "tasks": TASKS})
    with path.open("a", encoding="utf-8") as file:
        file.write('{"step": 40, "ta')
    ConflictLog(path, resume_step=20).write({"step": 30, "tasks": ["new"]})
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [line["step"] for line in lines] == [10, 20, 30]
    assert lines[-1]["tasks"] == ["new"]
    assert "情感" in path.read_text(encoding="utf-8")
    ConflictLog(path)
    assert path.read_bytes() == b""
