"""Rows that stand twice: hashes of their texts, what training and held-out rows share, near duplicates, clusters."""

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mtl_opt.data.read.rows import Row
from mtl_opt.data.store.tables import Numbers

ASKED, WHOLE, GROUP = 0, 1, 2
"""Columns of the marks of rows: hashes of what is asked, of question and answer, and of the group (0 for none)."""

SHINGLE = 5
"""Characters of a shingle: long enough that unrelated texts share few, in Chinese too."""

HASHES = 64
BANDS = 16
"""With 16 bands of 4 hashes, a pair of similarity 0.8 is found with probability 1 - (1 - 0.8^4)^16 = 99.98 %."""

NEAR = 0.8
"""Smallest Jaccard similarity of the shingles of near duplicates."""

MOST_COMPARED = 8
"""Texts of one bucket that a new one is compared with, so that templated texts do not take quadratic time."""


@dataclass(frozen=True)
class Overlap:
    """Count what the held-out rows of one task share with training rows, and the duplicates among the latter.

    Attributes:
        duplicates: Training rows that repeat an earlier one of the task.
        shared: Held-out rows that are training rows of the task too, question and answer.
        asked: Further held-out rows whose question is trained on with another answer.
        elsewhere: Held-out rows that are training rows of another task, by that task.
        dropped: Training rows that `deduplicate` left out.
    """

    duplicates: int
    shared: int
    asked: int
    elsewhere: dict[str, int]
    dropped: int = 0


def prompt_text(row: Row) -> str:
    """Join everything before the last answer of a row into one text."""
    return "\n".join([row.system, *(turn.text for turn in row.history), row.user_text])


def whole_text(row: Row) -> str:
    """Join question and answer of a row."""
    return f"{prompt_text(row)}\n{row.output}"


def plain(text: str) -> bytes:
    """Encode a text in Unicode's normal form C, with every stretch of white space as one blank."""
    return " ".join((text if text.isascii() else unicodedata.normalize("NFC", text)).split()).encode()


def marks_of(rows: Iterable[Row]) -> Numbers:  # [rows, 3]
    """Hash the question, the question with its answer, and the group of every row.

    Args:
        rows: The rows.

    Returns:
        Three hashes per row, of which the last is 0 where it has no group. `[rows, 3]`
    """
    found = bytearray()
    for row in rows:
        asked = blake2b(plain(prompt_text(row)), digest_size=8)
        found += asked.digest()
        asked.update(b"\0" + plain(row.output))
        found += asked.digest()
        found += bytes(8) if row.group is None else blake2b(row.group.encode(), digest_size=8).digest()
    return np.frombuffer(bytes(found), dtype=np.uint64).reshape(-1, 3)


def repeated(values: Numbers) -> Numbers:  # [rows] -> [rows]
    """Mark every value that occurred before."""
    found = np.ones(len(values), dtype=bool)
    found[np.unique(values, return_index=True)[1]] = False
    return found


def overlaps(train: Mapping[str, Numbers], held: Mapping[str, Numbers]) -> dict[str, Overlap]:
    """Count per task what its held-out rows share with the training rows of all tasks.

    Args:
        train: Marks of the training rows of every task. `[rows, 3]`
        held: Marks of the held-out rows of every task. `[rows, 3]`

    Returns:
        The counts of every task.
    """
    whole = {task: np.unique(marks[:, WHOLE]) for task, marks in train.items()}
    found = {}
    for task, marks in held.items():
        own = np.isin(marks[:, WHOLE], whole[task])
        other = {name: int(np.isin(marks[:, WHOLE], them).sum()) for name, them in whole.items() if name != task}
        asked = np.isin(marks[:, ASKED], train[task][:, ASKED]) & ~own
        found[task] = Overlap(
            len(train[task]) - len(whole[task]),
            int(own.sum()),
            int(asked.sum()),
            {name: count for name, count in other.items() if count},
        )
    return found


def clusters(marks: Numbers) -> Numbers:  # [rows, 3] -> [rows]
    """Number the clusters of rows that ask the same, or have the same group, directly or over other rows.

    Args:
        marks: Marks of the rows. `[rows, 3]`

    Returns:
        Number of the cluster of every row. `[rows]`
    """
    num_rows = len(marks)
    links = [(np.arange(num_rows), _first_places(marks[:, ASKED]))]
    grouped = np.flatnonzero(marks[:, GROUP])
    links.append((grouped, grouped[_first_places(marks[grouped, GROUP])]))
    rows, columns = (np.concatenate(part) for part in zip(*links, strict=True))
    graph = coo_array((np.ones(len(rows), dtype=bool), (rows, columns)), shape=(num_rows, num_rows))
    return connected_components(graph, directed=False)[1]


def _first_places(values: Numbers) -> Numbers:  # [rows] -> [rows]
    """Return the index of the first equal value for every value."""
    _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    return first[inverse]


def to_drop(train: Sequence[Row], held: Sequence[Row], marks: tuple[Numbers, Numbers], near: bool) -> Numbers:  # [rows]
    """Mark the training rows of a task that repeat a held-out row or an earlier training row; `marks` are of both."""
    own, theirs = (part[:, WHOLE] for part in marks)
    found = repeated(own) | np.isin(own, theirs)
    if near:
        left = np.flatnonzero(~found)
        known = NearTexts()
        for row in held:
            known.find(whole_text(row))
        found[left] = [known.find(whole_text(train[i])) for i in left.tolist()]
    return found


def shingles(text: str) -> Numbers:  # [shingles]
    """Hash all substrings of `SHINGLE` characters of a text, ignoring case and white space."""
    joined = "".join(text.casefold().split()) or " "
    letters = np.frombuffer(joined.encode("utf-32-le", errors="replace"), dtype=np.uint32).astype(np.uint64)
    if len(letters) < SHINGLE:
        letters = np.concatenate([letters, np.zeros(SHINGLE - len(letters), np.uint64)])
    hashed = np.zeros(len(letters) - SHINGLE + 1, np.uint64)
    # A polynomial hash modulo 2^64 with an odd multiplier (2^64 over the golden ratio), its low bits mixed at the end.
    for i in range(SHINGLE):
        hashed = hashed * np.uint64(0x9E3779B97F4A7C15) + letters[i : len(letters) - SHINGLE + 1 + i]
    return np.unique(hashed ^ (hashed >> np.uint64(29)))


class NearTexts:
    """Find texts whose shingles nearly agree with those of a text kept before."""

    # Candidates share a band of their MinHash signatures (locality-sensitive hashing) and are then compared exactly:
    # Broder, "On the resemblance and containment of documents", SEQUENCES 1997.
    def __init__(self) -> None:
        chance = np.random.default_rng(0)
        self.factors = chance.integers(1, 2**63, HASHES, dtype=np.uint64) | np.uint64(1)
        self.offsets = chance.integers(0, 2**63, HASHES, dtype=np.uint64)
        self.buckets: dict[tuple[int, bytes], list[int]] = {}
        self.sets: list[Numbers] = []

    def find(self, text: str, keep: bool = True) -> bool:
        """Tell whether a text nearly repeats a kept one, and keep it for those to come."""
        mine = shingles(text)
        signature = (mine[None, :] * self.factors[:, None] + self.offsets[:, None]).min(axis=1).reshape(BANDS, -1)
        keys = [(band, signature[band].tobytes()) for band in range(BANDS)]
        candidates = {other for key in keys for other in self.buckets.get(key, ())}
        found = any(similarity(mine, self.sets[other]) >= NEAR for other in candidates)
        for key in keys if keep else ():
            bucket = self.buckets.setdefault(key, [])
            if len(bucket) < MOST_COMPARED:
                bucket.append(len(self.sets))
        self.sets += [mine] * keep
        return found


def similarity(first: Numbers, second: Numbers) -> float:  # [shingles], [shingles]
    """Compute the Jaccard similarity of two sets of shingles."""
    common = len(np.intersect1d(first, second, assume_unique=True))
    return common / (len(first) + len(second) - common)
