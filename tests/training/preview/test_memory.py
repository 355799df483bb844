"""Formulas of memory: each grows with what it counts."""

import dataclasses

import pytest

from mtl_opt.models import QuantizationSettings
from mtl_opt.training.preview.memory import (
    Memory,
    TransformerShape,
    activation_bytes,
    logit_bytes,
    optimizer_bytes,
    quantized_bytes,
    row_bytes,
)

SHAPE = TransformerShape(layers=8, hidden=64, intermediate=256, heads=4, vocabulary=1000, dropped=0, eager=False)


def test_the_buffer_is_tasks_times_parameters_times_bytes():
    assert row_bytes(4, 1000) == 16_000
    assert row_bytes(8, 1000, bytes_per_number=2) == 16_000


def test_the_total_is_the_sum():
    assert Memory(1, 2, 4, 8, 16, 32).total == 63


def test_small_tensors_of_8_bit_optimizers_count_in_32_bits():
    assert optimizer_bytes("adamw_bnb_8bit", [4096, 4095]) == 2 * 4096 + 8 * 4095
    assert optimizer_bytes("adamw_torch", [4096, 4095]) == 8 * 8191
    assert optimizer_bytes("sgd", [10]) == 0


def test_four_bits_take_half_a_byte_and_scales():
    exact = 64 * 256 * 10
    plain, double = (quantized_bytes(exact, 10, QuantizationSettings(4, double=d)) for d in (False, True))
    assert plain == exact // 2 + 4 * exact // 64 + 64
    assert double == exact // 2 + exact // 64 + 4 * 10 + 1024 + 64
    assert quantized_bytes(exact, 10, QuantizationSettings(8)) == exact + 40


@pytest.mark.parametrize(
    ("change", "more"),
    [({"dropped": 100}, True), ({"eager": True}, True), ({"layers": 4}, False), ({"hidden": 32}, False)],
)
def test_activations_grow_with_the_model(change, more):
    base = activation_bytes(SHAPE, 512, 128, half=False)
    other = activation_bytes(dataclasses.replace(SHAPE, **change), 512, 128, half=False)
    assert (other > base) is more
    assert other != base


def test_checkpointing_keeps_one_layer_and_the_inputs_of_all():
    whole = activation_bytes(SHAPE, 512, 128, half=False)
    kept = activation_bytes(SHAPE, 512, 128, half=False, checkpointed=True)
    assert kept == whole // 8 + 512 * 8 * 64 * 4
    assert activation_bytes(SHAPE, 512, 128, half=False, checkpointed=True, logits=10**9) == 512 * 8 * 64 * 4


def test_half_precision_takes_less():
    assert 0.5 < activation_bytes(SHAPE, 8, 8, half=True) / activation_bytes(SHAPE, 8, 8, half=False) < 0.7
    assert logit_bytes(1000, 8, 0, half=True) == logit_bytes(1000, 8, 0, half=False) / 2
    assert logit_bytes(1000, 8, 4, half=True) == 1000 * (4 * 8 + 12 * 4)
