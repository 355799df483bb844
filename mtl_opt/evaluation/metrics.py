"""Metrics of predictions against references, by name: pure functions, the same for texts and for label numbers.

All are shares in [0, 1] where higher is better, except `loss`, `perplexity`, `mse` and the correlations.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mtl_opt.errors import InputError, UnknownNameError
from mtl_opt.evaluation.label_metrics import (
    accuracy,
    f1_binary,
    f1_macro,
    matthews,
    mean_squared_error,
    pearson,
    positive_label,
)
from mtl_opt.evaluation.text_metrics import bleu, chrf, normalise_answer, rouge, token_f1

Needs = Literal["loss", "labels", "texts", "numbers"]


@dataclass(frozen=True)
class Metric:
    """Describe one metric.

    Attributes:
        needs: What it is computed from: the loss, or predictions that are labels (texts or numbers), free texts,
            or the numbers of a regression.
        text: What it measures.
        higher_is_better: Its direction.
        compute: Predictions, references → value; None for what the loss gives.
        argument: What may stand behind `=` in its name; None: nothing.
    """

    needs: Needs
    text: str
    higher_is_better: bool = True
    compute: Callable[..., float] | None = None
    argument: str | None = None


def exact_match(predictions: Sequence[Any], references: Sequence[Any]) -> float:
    """Compute the share of predictions that equal their reference.

    Texts are compared after Unicode NFC (so that é as one or as two code points is the same) and without the white
    space at both ends. Nothing else is forgiven: case, punctuation, inner white space and full-width forms count.

    Args:
        predictions: Generated texts, or label numbers.
        references: Expected ones, one per prediction.

    Returns:
        A share in [0, 1].

    An `InputError` says that there is nothing to compare, or that the lengths differ.

    Examples:
        >>> exact_match([" yes ", "No", "不满意"], ["yes", "no", "不满意"])
        0.6666666666666666
    """
    check_pairs("Exact match", predictions, references)
    hits = sum(normalise_answer(p) == normalise_answer(r) for p, r in zip(predictions, references, strict=True))
    return hits / len(predictions)


METRICS: Mapping[str, Metric] = {
    "loss": Metric("loss", "mean next-token loss in nats per label token", higher_is_better=False),
    "perplexity": Metric("loss", "exp(loss)", higher_is_better=False),
    "exact_match": Metric("texts", "share of answers that equal the reference", compute=exact_match),
    "accuracy": Metric("labels", "share of right labels (scikit-learn)", compute=accuracy),
    "f1_macro": Metric("labels", "F1 of each label of the references, averaged (scikit-learn)", compute=f1_macro),
    "f1_binary": Metric("labels", "F1 of the positive one of two labels (scikit-learn)", compute=f1_binary,
                        argument="the positive label"),
    "matthews": Metric("labels", "Matthews correlation, in [-1, 1] (scikit-learn)", compute=matthews),
    "token_f1": Metric("texts", "F1 over the words (Chinese: characters) of an answer, as SQuAD's", compute=token_f1),
    "rouge1": Metric("texts", "ROUGE-1, F-measure (rouge-score)", compute=rouge("rouge1")),
    "rouge2": Metric("texts", "ROUGE-2, F-measure (rouge-score)", compute=rouge("rouge2")),
    "rougeL": Metric("texts", "ROUGE-L, F-measure (rouge-score)", compute=rouge("rougeL")),
    "bleu": Metric("texts", "corpus BLEU / 100 (sacreBLEU; tokenizer 13a, zh where references are Chinese)",
                   compute=bleu),
    "chrf": Metric("texts", "corpus chrF2 / 100 (sacreBLEU)", compute=chrf),
    "mse": Metric("numbers", "mean squared error of a regression", higher_is_better=False, compute=mean_squared_error),
    "pearson": Metric("numbers", "linear correlation of a regression, in [-1, 1]; NaN where nothing varies",
                      compute=pearson),
}  # fmt: skip
"""The one registry of metrics."""


def split_name(name: str, where: str = "metric") -> tuple[str, str | None]:
    """Split a metric's name into its base and its argument.

    Args:
        name: Such as `rougeL` or `f1_binary=yes`.
        where: What to call it in errors.

    Returns:
        Its name in `METRICS`, and its argument or None.

    Raises:
        InputError: If it takes no argument, or is the ambiguous `f1`.
        UnknownNameError: If there is no such metric.
    """
    base, sign, argument = name.partition("=")
    if base == "f1":
        raise InputError(f"{where}: `f1` may mean `f1_macro`, `f1_binary=LABEL` or `token_f1`; name one of them.")
    if base not in METRICS:
        raise UnknownNameError(where, base, METRICS)
    if sign and (METRICS[base].argument is None or not argument):
        raise InputError(f"{where}: `{name}`: {METRICS[base].argument or f'`{base}` takes nothing'} behind `=`.")
    return base, argument if sign else None


def check_metrics(names: Sequence[str], references: Sequence[Any], where: str) -> None:
    """Refuse metrics that cannot be computed of these references, before time is spent on predictions.

    Args:
        names: Names of metrics.
        references: What predictions will be compared with.
        where: What to call it in errors.

    Raises:
        InputError: If a name is unknown, stands twice, or does not fit the references.
    """
    known: list[str] = []
    for name in names:
        base, argument = split_name(name, where)
        if base in known:
            raise InputError(f"{where}: `{base}` stands twice.")
        known.append(base)
        if base == "f1_binary" and references:
            try:
                positive_label(references, argument)
            except InputError as error:
                raise InputError(f"{where}: {error}") from error


def score(names: Sequence[str], predictions: Sequence[Any], references: Sequence[Any]) -> dict[str, float]:
    """Compute metrics of predictions by name.

    Args:
        names: Names of metrics; those that the loss gives are left out.
        predictions: Generated texts or predicted labels.
        references: Expected ones, one per prediction.

    Returns:
        Name without argument → value.

    An `InputError` says that a name is unknown or does not fit.

    Examples:
        >>> score(["accuracy", "f1_binary=yes"], ["yes", "no", "yes"], ["yes", "no", "no"])
        {'accuracy': 0.6666666666666666, 'f1_binary': 0.6666666666666666}
    """
    found = {}
    for name in names:
        base, argument = split_name(name)
        compute = METRICS[base].compute
        if compute is not None:
            check_pairs(base, predictions, references)
            extra = () if argument is None else (argument,)
            found[base] = float(compute(predictions, references, *extra))
    return found


def from_loss(names: Sequence[str], loss: float) -> dict[str, float]:
    """Compute metrics that follow from the mean loss.

    Args:
        names: Names of metrics; the others are left out.
        loss: Mean loss in nats per token.

    Returns:
        Name → value; perplexity is infinite where it leaves double precision.

    Examples:
        >>> from_loss(["loss", "perplexity", "bleu"], 0.0)
        {'loss': 0.0, 'perplexity': 1.0}
    """
    values = {"loss": loss, "perplexity": math.exp(loss) if loss < 709 else loss * math.inf}
    return {name: values[name] for name in names if name in values}


def check_pairs(name: str, predictions: Sequence[Any], references: Sequence[Any]) -> None:
    """Refuse predictions that cannot be paired with references."""
    if len(predictions) != len(references):
        raise InputError(
            f"{name} needs one reference per prediction, got {len(predictions)} predictions and "
            f"{len(references)} references."
        )
    if not len(predictions):
        raise InputError(f"{name} needs at least one prediction, got none.")
