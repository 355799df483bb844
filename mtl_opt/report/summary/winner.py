"""Which method won: chosen and tested over the same seeds."""

from collections.abc import Mapping
from dataclasses import dataclass

from mtl_opt.report.summary.numbers import Comparison, Score, score_over_seeds
from mtl_opt.report.summary.verdicts import adjust_with_holm, compare_scores, say_winner


@dataclass(frozen=True)
class Winner:
    """Hold who won and what that rests on.

    Attributes:
        method: The method with the highest mean over the shared seeds; None where nothing can be compared.
        score: Its score at these seeds; None likewise.
        comparisons: It against every other method, adjusted together.
        verdict: One or two sentences.
        notes: Which seeds are left out of that.
    """

    method: str | None
    score: Score | None
    comparisons: list[Comparison]
    verdict: str
    notes: list[str]


def find_winner(score_name: str, scores: Mapping[str, Score]) -> Winner:
    """Choose the best method over the seeds that all methods with a finite score have, and test it against the others.

    A mean over other seeds is no fair rival: an easy seed more would win.
    """
    finite = {name: one for name, one in scores.items() if one.mean is not None}
    shared = shared_seeds(finite)
    at = {name: only(one, shared) for name, one in finite.items()} if shared else {}
    means = {name: one.mean for name, one in at.items() if one.mean is not None}
    winner = max(means, key=lambda name: means[name]) if means else None
    comparisons = [] if winner is None else adjust_with_holm(
        [compare_scores(winner, name, at[winner], at.get(name, of)) for name, of in scores.items() if name != winner]
    )  # fmt: skip
    verdict = say_winner(winner, score_name, comparisons, scores)
    return Winner(winner, at.get(winner or ""), comparisons, verdict, left_out(finite, shared) if shared else [])


def shared_seeds(scores: Mapping[str, Score]) -> list[int]:
    """List the seeds that all scores have."""
    seeds = [set(one.seeds) for one in scores.values()]
    return sorted(set.intersection(*seeds)) if seeds else []


def only(one: Score, seeds: list[int]) -> Score:
    """Restrict a finite score to some of its seeds."""
    if set(one.seeds) == set(seeds):
        return one
    return score_over_seeds({seed: value for seed in seeds if (value := one.at(seed)) is not None})


def left_out(scores: Mapping[str, Score], shared: list[int]) -> list[str]:
    """Name the seeds that are left out of the choice of the winner."""
    others = {name: [seed for seed in one.seeds if seed not in shared] for name, one in scores.items()}
    parts = [f"seed{'s' * (len(of) > 1)} {', '.join(map(str, of))} of `{name}`" for name, of in others.items() if of]
    if not parts:
        return []
    return [
        f"The methods are compared over the seeds that all with a finite score have ({', '.join(map(str, shared))}); "
        f"left out of that: {'; '.join(parts)}."
    ]
