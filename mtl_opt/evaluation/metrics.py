"""Metrics of predictions against references: pure functions of texts."""

from collections.abc import Sequence
from unicodedata import normalize

from mtl_opt.errors import InputError


def exact_match(predictions: Sequence[str], references: Sequence[str]) -> float:
    """Compute the share of predictions that equal their reference.

    Texts are compared after Unicode NFC (so that é as one or as two code points is the same) and without the white
    space at both ends. Nothing else is forgiven: case, punctuation, inner white space and full-width forms count.

    Args:
        predictions: Generated texts.
        references: Expected texts, one per prediction.

    Returns:
        A share in [0, 1].

    Raises:
        InputError: Where there is nothing to compare, or the lengths differ.

    Examples:
        >>> exact_match([" yes ", "No", "不满意"], ["yes", "no", "不满意"])
        0.6666666666666666
    """
    if len(predictions) != len(references):
        raise InputError(
            f"Exact match needs one reference per prediction, got {len(predictions)} predictions and "
            f"{len(references)} references."
        )
    if not predictions:
        raise InputError("Exact match needs at least one prediction, got none.")
    hits = sum(plain(p) == plain(r) for p, r in zip(predictions, references, strict=True))
    return hits / len(predictions)


def plain(text: str) -> str:
    """Bring a text to the form in which it is compared.

    Args:
        text: Any text.

    Returns:
        The text in Unicode NFC without white space at both ends.
    """
    return normalize("NFC", text).strip()
