"""Pictures of two overlapping digits: one at the upper left, one at the lower right, the brighter pixel wins.

`digits`: scikit-learn's 1797 digits of 8 × 8 pixels, laid 4 pixels apart into 12 × 12: a variant of MultiMNIST that
needs no download. `mnist`: idx files of MNIST, 28 × 28 laid 6 pixels apart into 34 × 34 (MultiMNIST's places in its
36 × 36, without the empty border), halved by averaging to 17 × 17.
"""

import gzip
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn.functional import avg_pool2d

from mtl_opt.errors import InputError

SHIFT = {8: 4, 28: 6}
"""Pixels between the two digits, by their size."""

PARTS = {"train": 0.6, "validation": 0.2, "test": 0.2}
"""Shares of the single digits; no digit is in two parts."""

PER_DIGIT = {"train": 4, "validation": 2, "test": 2}
"""Pictures drawn per single digit of a part."""


@dataclass(frozen=True)
class Part:
    """Hold pictures and what they show.

    Attributes:
        pictures: From 0 to 1. `[rows, 1, height, width]`
        labels: The digit at the upper left and the one at the lower right. `[rows, 2]`
    """

    pictures: Tensor
    labels: Tensor


def sklearn_digits() -> tuple[Tensor, Tensor]:  # [rows, 8, 8]
    """Load scikit-learn's digits, which come with it."""
    found = load_digits()
    return torch.from_numpy(found.images / 16).float(), torch.from_numpy(found.target).long()


def mnist_digits(folder: Path) -> tuple[Tensor, Tensor]:  # -> [rows, 28, 28]
    """Read MNIST's test digits from idx files, compressed or not."""
    images = read_idx(folder, "t10k-images-idx3-ubyte")
    return torch.from_numpy(images).float() / 255, torch.from_numpy(read_idx(folder, "t10k-labels-idx1-ubyte")).long()


def read_idx(folder: Path, name: str) -> np.ndarray:
    """Read an array of bytes from an idx file."""
    plain, packed = folder / name, folder / f"{name}.gz"
    try:
        content = plain.read_bytes() if plain.exists() else gzip.decompress(packed.read_bytes())
    except (OSError, EOFError) as error:
        raise InputError(f"`--mnist`: no idx file could be read from `{packed}` ({error}).") from error
    zeros, kind, dimensions = struct.unpack(">HBB", content[:4]) if len(content) >= 4 else (1, 0, 0)
    start = 4 + 4 * dimensions
    shape = struct.unpack(f">{dimensions}I", content[4:start]) if len(content) >= start else ()
    if zeros or kind != 8 or len(content) - start != int(np.prod(shape)):
        raise InputError(f"`--mnist`: `{name}` in `{folder}` is not a complete idx file of bytes.")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy()


def two_digits(digits: Tensor, labels: Tensor, num: int, generator: torch.Generator) -> Part:
    """Lay pairs of digits over each other."""
    size = digits.shape[-1]
    whole = size + SHIFT[size]
    first, second = torch.randint(len(digits), (2, num), generator=generator)
    pictures = torch.zeros(num, 1, whole, whole)
    pictures[:, 0, :size, :size] = digits[first]
    lower_right = pictures[:, 0, -size:, -size:]
    pictures[:, 0, -size:, -size:] = torch.maximum(lower_right, digits[second])
    if size == 28:
        pictures = avg_pool2d(pictures, 2)
    return Part(pictures, torch.stack([labels[first], labels[second]], 1))


def parts(digits: Tensor, labels: Tensor, seed: int) -> dict[str, Part]:  # digits [rows, size, size], labels [rows]
    """Split single digits and make the pictures of every part from its own digits."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(digits), generator=generator)
    sizes = [round(share * len(digits)) for share in PARTS.values()]
    chosen = dict(zip(PARTS, order.split([*sizes[:-1], len(digits) - sum(sizes[:-1])]), strict=True))
    return {
        name: two_digits(digits[rows], labels[rows], PER_DIGIT[name] * len(rows), generator)
        for name, rows in chosen.items()
    }
