"""Differences between methods, and the conclusions that their tests allow."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from mtl_opt.evaluation.statistics import LEVEL, MIN_SEEDS, bootstrap_interval, holm, paired_test
from mtl_opt.report.summary.numbers import Comparison, Score

FEW = f"too few for a test (at least {MIN_SEEDS} are needed)"


def compare_scores(method: str, other: str, mine: Score, theirs: Score, task: str | None = None) -> Comparison:
    """Compare two methods at the seeds that both have."""
    pairs = {seed: (mine.at(seed), theirs.at(seed)) for seed in mine.seeds if seed in theirs.seeds}
    finite = {seed: a - b for seed, (a, b) in pairs.items() if a is not None and b is not None}
    differences = list(finite.values())
    low, high = bootstrap_interval(differences) or (None, None)
    lost = mine.num_non_finite + theirs.num_non_finite
    diverged = lost > 0 or len(finite) < len(pairs)  # a difference over the seeds that went well would flatter
    mean = sum(differences) / len(differences) if differences and not diverged else None
    p = None if diverged else paired_test(differences)
    if diverged:
        low = high = None
    return Comparison(method, other, task, list(finite), mean, low, high, p, None, "", "")


def adjust_with_holm(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Adjust the tests of a family for their number, and state their verdicts."""
    adjusted = holm([one.p for one in comparisons])
    found = []
    for one, p in zip(comparisons, adjusted, strict=True):
        new = replace(one, p_holm=p, verdict=verdict_of(one, p))
        found.append(replace(new, sentence=sentence_of(new)))
    return found


def verdict_of(one: Comparison, p: float | None) -> str:
    """Return the verdict of a comparison as a keyword."""
    if one.difference is None:
        return "not finite"
    if p is None:
        return "too few seeds"
    if p > 1 - LEVEL:
        return "not distinguishable"
    return "better" if one.difference > 0 else "worse"


def sentence_of(one: Comparison) -> str:
    """Formulate the verdict of a comparison."""
    on = f" on `{one.task}`" if one.task else ""
    pair = f"`{one.method}` and `{one.other}`{on}"
    if one.verdict == "not finite":
        return f"{pair} cannot be compared: a run is missing or not finite."
    numbers = f"{one.difference:+.1f} points"
    if one.low is not None:
        numbers += f", 95 % interval {one.low:+.1f} to {one.high:+.1f}"
    if one.verdict == "too few seeds":
        seeds = f"{len(one.seeds)} seed{'s' * (len(one.seeds) != 1)}"
        return f"No test can tell {pair} apart with {seeds}, {FEW}: {numbers}."
    numbers += f", p = {one.p_holm:.3g} after Holm, {len(one.seeds)} seeds"
    if one.verdict == "not distinguishable":
        return f"{pair} are not distinguishable: {numbers}."
    return f"`{one.method}` is {one.verdict} than `{one.other}`{on}: {numbers}."


def say_winner(
    winner: str | None, score_name: str, comparisons: Sequence[Comparison], scores: Mapping[str, Score]
) -> str:
    """Formulate who won, and whether that can be told from chance."""
    if winner is None:
        return say_nothing(scores)
    if len(scores) == 1:
        return f"`{winner}` is the only method: there is nothing to compare it with."
    if all(one.verdict == "not finite" for one in comparisons):
        return (
            f"`{winner}` is the only method with a finite mean {score_name}: no other method has finite results at the "
            "same seeds, and nothing was tested."
        )
    equal = [f"`{one.other}`" for one in comparisons if one.difference == 0]
    lead = f"`{winner}` has the highest mean {score_name}"
    if equal:
        lead = f"`{winner}` and {', '.join(equal)} share the highest mean {score_name}"
    few = [one for one in comparisons if one.verdict == "too few seeds"]
    if few:
        seeds = min(len(one.seeds) for one in few)
        plural = f"{seeds} paired seed{'s' * (seeds != 1)}"
        return f"{lead}, but with {plural} no test can tell methods apart; {MIN_SEEDS} or more are needed."
    return say_tested(lead, comparisons)


def say_nothing(scores: Mapping[str, Score]) -> str:
    """Explain why no method won."""
    seeds = [f"`{name}`: {', '.join(map(str, one.seeds))}" for name, one in scores.items() if one.mean is not None]
    if not seeds:
        return "No method has a finite score: nothing can be said about a winner."
    shown = "; ".join(seeds[:6]) + ("; ..." if len(seeds) > 6 else "")
    return f"Nothing can be compared: no seed is shared by all methods with a finite score ({shown})."


def say_tested(lead: str, comparisons: Sequence[Comparison]) -> str:
    """Formulate what the tests of the winner have shown; "better" only where a test found it."""
    worse, same, better, broken = (
        [f"`{one.other}`" for one in comparisons if one.verdict == verdict]
        for verdict in ("worse", "not distinguishable", "better", "not finite")
    )
    level = f"(Holm-adjusted p < {1 - LEVEL:.2g})"
    with_results = " that has finite results" if broken else ""
    if worse:
        return f"{lead}, but it is worse than {', '.join(worse)} {level}."
    if same and not better:
        return f"{lead}, but it is not distinguishable from any other method{with_results}."
    if same:
        return (
            f"{lead}; it is not distinguishable from {', '.join(same)}. It is better than {', '.join(better)} {level}."
        )
    return f"{lead}, and it is better than every other method{with_results} {level}."
