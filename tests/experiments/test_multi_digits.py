"""Pictures of two digits: no digit in two parts, the right places, idx files, the choice of a learning rate."""

import gzip
import struct
from pathlib import Path

import pytest
import torch

from experiments.multi_digits.measure import choose, learn, verdicts
from experiments.multi_digits.pictures import mnist_digits, parts, read_idx, sklearn_digits, two_digits
from mtl_opt.errors import InputError

MNIST = Path(__file__).parents[3] / "shared/data/mnist_t10k"


def test_digits_lie_at_the_upper_left_and_the_lower_right():
    digits = torch.stack([torch.full((8, 8), 0.25), torch.full((8, 8), 0.75)])
    made = two_digits(digits, torch.tensor([3, 7]), 20, torch.Generator().manual_seed(0))
    assert made.pictures.shape == (20, 1, 12, 12)
    brightness = {3: 0.25, 7: 0.75}
    for picture, (first, second) in zip(made.pictures[:, 0], made.labels.tolist(), strict=True):
        assert float(picture[0, 0]) == brightness[first]
        assert float(picture[-1, -1]) == brightness[second]
        assert float(picture[5, 5]) == max(brightness[first], brightness[second])
        assert float(picture[0, -1]) == 0
    assert made.labels.unique().tolist() == [3, 7]


def test_parts_share_no_digit():
    digits = torch.arange(1, 101).float()[:, None, None].expand(100, 8, 8) / 100  # the brightness names the digit
    made = parts(digits, torch.zeros(100, dtype=torch.long), seed=1)
    used = {
        name: set(part.pictures[:, 0, 0, 0].tolist() + part.pictures[:, 0, -1, -1].tolist())
        for name, part in made.items()
    }
    assert not used["train"] & used["validation"]
    assert not used["train"] & used["test"]
    assert not used["validation"] & used["test"]
    assert len(made["train"].pictures) == 240


def test_idx_files_are_read_packed_or_not_and_refused_when_cut(tmp_path):
    content = struct.pack(">HBB3I", 0, 8, 3, 2, 2, 3) + bytes(range(12))
    (tmp_path / "图.gz").write_bytes(gzip.compress(content))
    (tmp_path / "plain").write_bytes(content)
    assert read_idx(tmp_path, "图").tolist() == read_idx(tmp_path, "plain").tolist()
    assert read_idx(tmp_path, "plain")[1].tolist() == [[6, 7, 8], [9, 10, 11]]
    (tmp_path / "cut").write_bytes(content[:-1])
    with pytest.raises(InputError, match=r"`cut` in .* is not a complete idx file"):
        read_idx(tmp_path, "cut")
    with pytest.raises(InputError, match=r"no idx file could be read"):
        read_idx(tmp_path, "absent")


@pytest.mark.skipif(not MNIST.exists(), reason="needs ../shared/data/mnist_t10k")
def test_mnist_is_read_and_learnt_from():
    digits, labels = mnist_digits(MNIST)
    assert digits.shape == (10_000, 28, 28)
    assert labels[:5].tolist() == [7, 2, 1, 0, 4]
    made = two_digits(digits, labels, 4, torch.Generator().manual_seed(0))
    assert made.pictures.shape == (4, 1, 17, 17)


def test_scikit_learns_digits_come_with_it():
    digits, labels = sklearn_digits()
    assert digits.shape == (1797, 8, 8)
    assert 0 <= digits.min() < digits.max() == 1
    assert labels.bincount().min() > 170


@pytest.mark.parametrize("method", ["pcgrad", "single: lower right"])
def test_a_few_steps_are_the_same_twice_and_leave_an_absent_head_alone(method):
    first, second = (learn(method, 3e-3, 0, 5, None) for _ in range(2))
    assert first == second
    assert first["tasks"] == ([0, 1] if method == "pcgrad" else [1])


def test_the_learning_rate_is_chosen_on_validation_pictures_alone():
    runs = [
        {"lr": lr, "validation": [v, 0.0], "test": [t, 0.0], "tasks": [0]}
        for lr, v, t in ((1e-3, 90.0, 10.0), (3e-3, 80.0, 99.0))
    ]
    assert [run["lr"] for run in choose(runs)] == [1e-3]


def test_a_constant_difference_of_nothing_is_no_difference():
    row = {"by_seed": [90.0, 91.0], "gain_over_single": (0.1, 0.5), "conflicts": 0.3, "accuracy": [(90, 1), (91, 1)]}
    found = verdicts({"sum": row, "pcgrad": row, "single": {}})
    assert not found["PCGrad is distinguishable from the sum"]
    better = verdicts({"sum": row, "pcgrad": {**row, "by_seed": [95.0, 95.9]}, "single": {}})
    assert better["PCGrad is distinguishable from the sum"]
