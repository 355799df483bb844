"""Metrics of labels, texts or numbers, computed by scikit-learn. An answer that is no label is wrong, not left out."""

from collections.abc import Sequence
from typing import Any

from mtl_opt.errors import InputError
from mtl_opt.evaluation.text_metrics import plain

POSITIVE = ("1", "yes", "true", "positive", "是", "有", "正面")
"""Labels taken for the positive one of two where none is named."""


def accuracy(predictions: Sequence[Any], references: Sequence[Any]) -> float:
    """Compute the share of right labels."""
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(_texts(references), _texts(predictions)))


def f1_macro(predictions: Sequence[Any], references: Sequence[Any]) -> float:
    """Compute F1 of every label that the references hold, and average them.

    A generated answer that is no such label counts as a miss of the true one; it makes no class of its own, which
    would pull the average down by however many kinds of nonsense were generated.
    """
    from sklearn.metrics import f1_score

    true = _texts(references)
    return float(f1_score(true, _texts(predictions), labels=sorted(set(true)), average="macro", zero_division=0))


def f1_binary(predictions: Sequence[Any], references: Sequence[Any], positive: str | None = None) -> float:
    """Compute F1 of the positive label."""
    from sklearn.metrics import f1_score

    label = positive_label(references, positive)
    true, found = _texts(references), _texts(predictions)
    return float(f1_score(true, found, labels=[label], average="macro", zero_division=0))


def positive_label(references: Sequence[Any], positive: str | None = None) -> str:
    """Find the positive one of two labels."""
    labels = sorted(set(_texts(references)))
    shown = ", ".join(f"`{label}`" for label in labels[:5])
    if len(labels) > 2:
        raise InputError(f"`f1_binary` needs two labels, the references have {len(labels)} ({shown}, ...).")
    if positive is not None:
        if plain(positive) not in labels:
            raise InputError(f"`f1_binary={positive}`: there is no such label among the references ({shown}).")
        return plain(positive)
    known = [label for label in labels if label.lower() in POSITIVE]
    if len(known) != 1:
        raise InputError(f"`f1_binary` does not know which of {shown} is positive; write `f1_binary=LABEL`.")
    return known[0]


def matthews(predictions: Sequence[Any], references: Sequence[Any]) -> float:
    """Compute the Matthews correlation coefficient, for any number of labels."""
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(_texts(references), _texts(predictions)))


def _texts(labels: Sequence[Any]) -> list[str]:
    """Bring labels to one form: numbers of classes and texts alike."""
    return [plain(label) for label in labels]
