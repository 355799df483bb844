"""What a step with a gradient per task may cost: the project's targets beside what was measured."""

from collections.abc import Iterator, Mapping
from typing import Any

STEP_LIMIT = {"equal": 1.05, "ragged": 1.10}
"""The largest `one_pass / plain`, by rows, for steps of at least `LONG_STEP` on a CPU and for any on a GPU."""

LONG_STEP = 0.15
"""Seconds of a plain step from which Python's overhead no longer counts."""

SMALL_LIMIT = 1.15
"""The same at size `small`, however long its step takes."""

OPTION_LIMIT = {"one_pass_window": 1.05, "one_pass_layers": 1.03}
"""The largest ratio to `one_pass`."""

TWO_PASS_LIMIT = {"time": 2.1, "memory": 1.2}
"""The largest `two_pass / plain` where every parameter is trained."""

PEER_LIMIT = {4: 2.5, 8: 4.0}
"""The smallest `peer / one_pass`, by number of tasks, for TorchJD's `autojac` with equal rows."""


def targets(head: Mapping[str, Any], result: Mapping[str, Any], gpu: bool) -> list[dict[str, Any]]:
    """Compare measured ratios with the project's targets."""
    if head["size"] == "tiny":  # nothing but overhead
        return []
    variants = result["variants"]
    long = gpu or variants["plain"]["seconds"].median >= LONG_STEP
    found = [*(_full(variants) if head["train"] == "full" else _lora(head, variants, long)), *_memory(variants)]
    if long:
        found += [
            (f"{name} / one_pass", result["option_ratios"][name].median, "at_most", limit)
            for name, limit in OPTION_LIMIT.items()
            if name in result["option_ratios"]
        ]
    if head["rows"] == "equal" and head["train"] == "lora" and head["tasks"] in PEER_LIMIT:
        found += [
            (f"{name} / one_pass", ratio.median, "at_least", PEER_LIMIT[head["tasks"]])
            for name, ratio in result["peer_ratios"].items()
            if name in {"torchjd", "torchjd_sequential"}
        ]
    return [
        {"name": name, "measured": at, bound: limit, "met": at <= limit if bound == "at_most" else at >= limit}
        for name, at, bound, limit in found
    ]


Found = tuple[str, float, str, float]


def _lora(head: Mapping[str, Any], variants: Mapping[str, Any], long: bool) -> Iterator[Found]:
    """Judge the time of `one_pass`."""
    if "one_pass" not in variants:
        return
    measured = variants["one_pass"]["ratio_to_plain"].median
    if head["size"] == "small" and head["rows"] == "equal":
        yield "one_pass / plain", measured, "at_most", SMALL_LIMIT
    elif long:
        yield "one_pass / plain", measured, "at_most", STEP_LIMIT[head["rows"]]


def _full(variants: Mapping[str, Any]) -> Iterator[Found]:
    """Judge time and memory of `two_pass`."""
    if "two_pass" in variants:
        one = variants["two_pass"]
        yield "two_pass / plain", one["ratio_to_plain"].median, "at_most", TWO_PASS_LIMIT["time"]
        yield "two_pass / plain, memory", one["memory_ratio_to_plain"], "at_most", TWO_PASS_LIMIT["memory"]


def _memory(variants: Mapping[str, Any]) -> Iterator[Found]:
    """Judge what `one_pass` holds beside its buffer: one layer's temporaries."""
    if "one_pass" in variants:
        one = variants["one_pass"]
        allowed = one["buffer_bytes"] + one["layer_bytes"]
        yield "one_pass, memory over plain / (buffer + one layer)", one["bytes_over_plain"] / allowed, "at_most", 1.0
