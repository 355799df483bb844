"""Statistics of a task's rows: lengths, labels, duplicates, diversity."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from mtl_opt.data.read.rows import Row
from mtl_opt.data.store.tables import Numbers, TokenView

SHINGLE = 5
"""Characters of a shingle: long enough that unrelated texts share few, in Chinese too."""

HASHES = 64
BANDS = 16
"""With 16 bands of 4 hashes, a pair of similarity 0.8 is found with probability 1 - (1 - 0.8^4)^16 = 99.98 %."""

NEAR = 0.8
"""Smallest Jaccard similarity of the shingles of near duplicates."""

MOST_COMPARED = 8
"""Texts of one bucket that a new one is compared with, so that templated texts do not take quadratic time."""

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


def text_statistics(rows: Sequence[Row]) -> dict[str, Any]:
    """Count labels and duplicates of rows, and measure the diversity of their words (distinct n-grams)."""
    answers: Counter[str] = Counter()
    seen: set[int] = set()
    exact = 0
    grams: list[set[int]] = [set(), set(), set()]
    totals = [0, 0, 0]
    texts: list[str] = []
    every = max(1, math.ceil(len(rows) / SAMPLE))
    for number, row in enumerate(rows):
        text = prompt_text(row)
        answers[row.output] += 1
        key = hash((text, row.output))
        known = key in seen
        exact += known
        seen.add(key)
        words = WORD.findall(f"{text} {row.output}".casefold())
        for n in range(3):
            found = [hash(gram) for gram in zip(*(words[i:] for i in range(n + 1)), strict=False)]
            grams[n].update(found)
            totals[n] += len(found)
        if not known and number % every == 0:
            texts.append(f"{text}\n{row.output}")
    return {
        "labels": len(answers),
        "label_entropy": round(entropy(answers.values()), 3),
        "exact_duplicates": exact,
        "near_duplicates": near_duplicates(texts),
        "near_duplicates_of": len(texts),
        **{f"distinct_{n + 1}": round(len(grams[n]) / max(1, totals[n]), 4) for n in range(3)},
    }


def prompt_text(row: Row) -> str:
    """Join everything before the last answer of a row into one text."""
    return "\n".join([row.system, *(turn.text for turn in row.history), row.user_text])


def entropy(counts: Iterable[int]) -> float:
    """Compute the entropy of counts, in bits."""
    numbers = list(counts)
    total = sum(numbers)
    return abs(-sum(count / total * math.log2(count / total) for count in numbers))


def shingles(text: str) -> Numbers:  # [shingles]
    """Hash all substrings of `SHINGLE` characters of a text, ignoring case and white space."""
    plain = "".join(text.casefold().split()) or " "
    letters = np.frombuffer(plain.encode("utf-32-le", errors="replace"), dtype=np.uint32).astype(np.uint64)
    if len(letters) < SHINGLE:
        letters = np.concatenate([letters, np.zeros(SHINGLE - len(letters), np.uint64)])
    hashed = np.zeros(len(letters) - SHINGLE + 1, np.uint64)
    # A polynomial hash modulo 2^64 with an odd multiplier (2^64 over the golden ratio), its low bits mixed at the end.
    for i in range(SHINGLE):
        hashed = hashed * np.uint64(0x9E3779B97F4A7C15) + letters[i : len(letters) - SHINGLE + 1 + i]
    return np.unique(hashed ^ (hashed >> np.uint64(29)))


def near_duplicates(texts: Sequence[str]) -> int:
    """Count texts whose shingles nearly agree with those of an earlier one."""
    # Candidates share a band of their MinHash signatures (locality-sensitive hashing) and are then compared exactly:
    # Broder, "On the resemblance and containment of documents", SEQUENCES 1997.
    chance = np.random.default_rng(0)
    factors = chance.integers(1, 2**63, HASHES, dtype=np.uint64) | np.uint64(1)
    offsets = chance.integers(0, 2**63, HASHES, dtype=np.uint64)
    buckets: dict[tuple[int, bytes], list[int]] = {}
    sets: list[Numbers] = []
    found = 0
    for number, text in enumerate(texts):
        mine = shingles(text)
        sets.append(mine)
        signature = (mine[None, :] * factors[:, None] + offsets[:, None]).min(axis=1).reshape(BANDS, -1)
        keys = [(band, signature[band].tobytes()) for band in range(BANDS)]
        candidates = {other for key in keys for other in buckets.get(key, ())}
        if any(similarity(mine, sets[other]) >= NEAR for other in candidates):
            found += 1
        for key in keys:
            bucket = buckets.setdefault(key, [])
            if len(bucket) < MOST_COMPARED:
                bucket.append(number)
    return found


def similarity(first: Numbers, second: Numbers) -> float:  # [shingles], [shingles]
    """Compute the Jaccard similarity of two sets of shingles."""
    common = len(np.intersect1d(first, second, assume_unique=True))
    return common / (len(first) + len(second) - common)
