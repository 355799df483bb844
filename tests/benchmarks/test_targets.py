import pytest

from benchmarks.targets import targets
from benchmarks.timer import Summary


def alike(value: float) -> Summary:
    return Summary(value, value, value)


def a_measurement(one_pass: float = 1.0, two_pass: float = 2.0, seconds: float = 1.0, **ratios: float) -> dict:
    """Build what `measure` returns for given ratios."""
    bytes_ = {"peak_bytes": 1 << 20, "bytes_over_plain": 90, "buffer_bytes": 60, "layer_bytes": 40}
    one = {**bytes_, "seconds": alike(seconds), "memory_ratio_to_plain": 1.1}
    of = {"plain": 1.0, "one_pass": one_pass, "two_pass": two_pass}
    return {
        "variants": {n: {**one, "ratio_to_plain": alike(r)} for n, r in of.items()},
        "peer_ratios": {n: alike(r) for n, r in ratios.items() if not n.startswith("one_pass")},
        "option_ratios": {n: alike(r) for n, r in ratios.items() if n.startswith("one_pass")},
        "left_out": {},
    }


def a_head(**changed) -> dict:
    return {"size": "large", "tasks": 4, "rows": "equal", "train": "lora", **changed}


def judged(head: dict, measured: dict, gpu: bool = False) -> dict[str, bool]:
    return {one["name"]: one["met"] for one in targets(head, measured, gpu)}


@pytest.mark.parametrize(("rows", "limit"), [("equal", 1.05), ("ragged", 1.10)])
@pytest.mark.parametrize("tasks", [2, 16])
def test_one_pass_is_judged_at_any_number_of_tasks(rows, limit, tasks):
    head = a_head(rows=rows, tasks=tasks)
    assert judged(head, a_measurement(limit - 0.001))["one_pass / plain"]
    assert not judged(head, a_measurement(limit + 0.001))["one_pass / plain"]


def test_short_steps_are_judged_on_a_gpu_only():
    measured = a_measurement(1.06, seconds=0.149, one_pass_window=1.0)
    assert not any("one_pass / plain" in n or "window" in n for n in judged(a_head(), measured))
    assert not judged(a_head(), measured, gpu=True)["one_pass / plain"]


def test_small_steps_have_their_own_limit():
    head = a_head(size="small")
    assert judged(head, a_measurement(1.149, seconds=0.06))["one_pass / plain"]
    assert not judged(head, a_measurement(1.151, seconds=0.06))["one_pass / plain"]


def test_options_are_judged_against_one_pass():
    found = judged(a_head(), a_measurement(one_pass_window=1.049, one_pass_layers=1.031))
    assert found["one_pass_window / one_pass"]
    assert not found["one_pass_layers / one_pass"]


@pytest.mark.parametrize(("tasks", "enough"), [(4, 2.5), (8, 4.0)])
def test_torchjd_is_judged_at_four_and_eight_tasks(tasks, enough):
    found = judged(a_head(tasks=tasks), a_measurement(torchjd=enough + 0.1, torchjd_sequential=enough - 0.1))
    assert found["torchjd / one_pass"]
    assert not found["torchjd_sequential / one_pass"]
    assert "torchjd / one_pass" not in judged(a_head(tasks=2), a_measurement(torchjd=9))


def test_full_fine_tuning_judges_time_and_memory_of_two_pass():
    found = judged(a_head(train="full"), a_measurement(one_pass=9.0, two_pass=2.11))
    assert not found["two_pass / plain"]
    assert found["two_pass / plain, memory"]
    assert "one_pass / plain" not in found


def test_memory_of_one_pass_is_judged_against_buffer_and_one_layer():
    measured = a_measurement()
    name = "one_pass, memory over plain / (buffer + one layer)"
    assert judged(a_head(), measured)[name]
    measured["variants"]["one_pass"]["bytes_over_plain"] = 101
    assert not judged(a_head(), measured)[name]


def test_tiny_steps_are_nothing_but_overhead_and_have_no_targets():
    assert targets(a_head(size="tiny"), a_measurement(9.0), gpu=True) == []
