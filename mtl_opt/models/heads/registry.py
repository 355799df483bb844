"""The heads by name, and building one from what a configuration says of it."""

import inspect
from collections.abc import Mapping
from typing import Any

from mtl_opt.errors import UnknownNameError
from mtl_opt.models.heads.base import Head
from mtl_opt.models.heads.classification import ClassificationHead
from mtl_opt.models.heads.lm import LanguageModelHead
from mtl_opt.models.heads.regression import RegressionHead
from mtl_opt.models.heads.token_classification import TokenClassificationHead

HEADS: dict[str, type[Head]] = {
    "classification": ClassificationHead,
    "token_classification": TokenClassificationHead,
    "regression": RegressionHead,
    "lm": LanguageModelHead,
}
"""Heads by the name of `type`."""

SIZES = ("dim", "vocabulary")
"""Arguments of a constructor that the model gives."""


def head_options(kind: str) -> dict[str, Any]:
    """List the options of a type of head.

    Args:
        kind: One of `HEADS`.

    Returns:
        Option: its default; `inspect.Parameter.empty` where it has none.

    Raises:
        UnknownNameError: If there is no such head.
    """
    if kind not in HEADS:
        raise UnknownNameError("type of head", kind, HEADS)
    parameters = inspect.signature(HEADS[kind]).parameters
    return {name: parameter.default for name, parameter in parameters.items() if name not in SIZES}


def reads(kind: str) -> str:
    """Return the form of the answers that a type of head gives.

    Args:
        kind: One of `HEADS`.

    Returns:
        "row" (one value per row), "words" (one label per word) or "text".
    """
    return HEADS[kind].reads


def build_head(spec: Mapping[str, Any], dim: int, vocabulary: int) -> Head:
    """Build a head.

    Args:
        spec: `type`, and options of that type.
        dim: Width of the model's hidden states.
        vocabulary: Number of the model's outputs.

    Returns:
        The head, with fresh weights.
    """
    options = {key: value for key, value in spec.items() if key != "type"}
    sizes = {"dim": dim, "vocabulary": vocabulary}
    cls = HEADS[spec["type"]]
    own = {name: sizes[name] for name in inspect.signature(cls).parameters if name in SIZES}
    return cls(**own, **options)


def head_type(head: Head) -> str:
    """Return the name of a head's type in `HEADS`."""
    return next(name for name, cls in HEADS.items() if type(head) is cls)
