"""Statistics of a task's rows: lengths, labels, duplicates, diversity."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from mtl_opt.data.read.rows import Row
from mtl_opt.data.store.duplicates import NearTexts, prompt_text, whole_text
from mtl_opt.data.store.tables import TokenView

SAMPLE = 50_000
"""Largest number of rows searched for near duplicates; of more, evenly spaced ones."""

WORD = re.compile(r"[\u3400-\u9fff\uac00-\ud7af\u3040-\u30ff]|[^\W\u3400-\u9fff\uac00-\ud7af\u3040-\u30ff]+")
"""A word, or a single character of a script without spaces between words."""


def length_statistics(tokens: TokenView) -> dict[str, float]:
    """Summarise the numbers of tokens of rows."""
    lengths = tokens.lengths
    return {
        "min": int(lengths.min()),
        "mean": round(float(lengths.mean()), 1),
        "median": float(np.median(lengths)),
        "p95": round(float(np.percentile(lengths, 95)), 1),
        "max": int(lengths.max()),
        "total": int(lengths.sum()),
    }


def text_statistics(rows: Sequence[Row], held: Sequence[Row] = ()) -> dict[str, Any]:
    """Count labels and near duplicates of rows, and measure the diversity of their words (distinct n-grams)."""
    answers: Counter[str] = Counter()
    grams: list[set[int]] = [set(), set(), set()]
    totals = [0, 0, 0]
    seen: set[int] = set()
    known, near, searched = NearTexts(), 0, 0
    every = max(1, math.ceil(len(rows) / SAMPLE))
    for number, row in enumerate(rows):
        text = whole_text(row)
        answers[row.output] += 1
        words = WORD.findall(f"{prompt_text(row)} {row.output}".casefold())
        for n in range(3):
            found = [hash(gram) for gram in zip(*(words[i:] for i in range(n + 1)), strict=False)]
            grams[n].update(found)
            totals[n] += len(found)
        key = hash(text)
        if key not in seen and number % every == 0:
            near += known.find(text)
            searched += 1
        seen.add(key)
    held_every = max(1, math.ceil(len(held) / SAMPLE))
    return {
        "labels": len(answers),
        "label_entropy": round(entropy(answers.values()), 3),
        "near_duplicates": near,
        "near_duplicates_of": searched,
        "held_out_near": sum(known.find(whole_text(row), keep=False) for row in held[::held_every]),
        "held_out_near_of": len(range(0, len(held), held_every)),
        **{f"distinct_{n + 1}": round(len(grams[n]) / max(1, totals[n]), 4) for n in range(3)},
    }


def entropy(counts: Iterable[int]) -> float:
    """Compute the entropy of counts, in bits."""
    numbers = list(counts)
    total = sum(numbers)
    return abs(-sum(count / total * math.log2(count / total) for count in numbers))
