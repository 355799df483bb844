"""Lines of `results.jsonl` → `Summary`: scores, ranks, comparisons with their intervals and tests, and a verdict."""

from collections.abc import Mapping, Sequence
from math import inf, nan
from statistics import fmean
from typing import Any

from scipy.stats import rankdata

from mtl_opt.combiners import COMBINERS
from mtl_opt.evaluation.statistics import delta_m
from mtl_opt.report.read.runs import DIRECTIONS, Runs, check_poolable, collect, main_metrics
from mtl_opt.report.summary.method import Judged, name_of, summarise_method
from mtl_opt.report.summary.numbers import Comparison, MethodSummary, Score, Summary, score_over_seeds
from mtl_opt.report.summary.verdicts import adjust_with_holm, compare_scores
from mtl_opt.report.summary.winner import find_winner
from mtl_opt.results import SINGLE, method_of, role_of

NO_BASELINES = "Δm is missing: there are no single-task baselines (`baselines: true` trains them)."


def summarise(results: Sequence[Mapping[str, Any]], reference: str | None = None) -> Summary:
    """Summarise a comparison.

    Args:
        results: Lines of `results.jsonl`.
        reference: Method that the others are compared with; default `sum` where there is one, else the first.

    Returns:
        The summary; the same for the same lines, interval ends included.

    An `InputError` says that there are no results, or in what two runs disagree so that they cannot be pooled.
    """
    check_poolable(results)
    groups = collect(results)
    judged = judge(results, groups)
    joint = {name: runs for name, runs in groups.items() if name != SINGLE}
    ranks = mean_ranks(joint, judged)
    methods = [summarise_method(runs, judged, ranks.get(name)) for name, runs in joint.items()]
    baselines = summarise_method(judged.baselines, judged, None) if judged.baselines else None
    reference = reference if reference in joint else "sum" if "sum" in joint else next(iter(joint), None)
    score_name, scores = overall_scores(methods, joint, judged, reference)
    winner = find_winner(score_name, scores)
    notes = [*dict.fromkeys(reason for method in methods for reason in method.reasons)]
    notes += [NO_BASELINES] if baselines is None else []
    notes += [f"Auxiliary, in no mean, Δm or rank: {', '.join(judged.auxiliary)}."] if judged.auxiliary else []
    notes += [f"Not finite: {what}." for method in [*methods, *([baselines] if baselines else [])]
              for what in method.non_finite]  # fmt: skip
    return Summary(
        tasks=judged.tasks,
        main_metric=judged.main_metric,
        directions=judged.directions,
        seeds=sorted({seed for runs in groups.values() for seed in runs.lines}),
        methods=methods,
        baselines=baselines,
        score_name=score_name,
        scores=scores,
        reference=reference,
        winner=winner.method,
        winner_score=winner.score,
        verdict=winner.verdict,
        comparisons=winner.comparisons,
        against_reference=against(reference, scores),
        transfer=transfers(methods),
        search=searches(results),
        notes=winner.notes + notes + peeking_notes(methods) + edge_notes(results) + pull_notes(results),
    )


def judge(results: Sequence[Mapping[str, Any]], groups: Mapping[str, Runs]) -> Judged:
    """Collect tasks, main metrics and directions, those of joint runs first."""
    main: dict[str, str] = {}
    directions = dict(DIRECTIONS)
    auxiliary: dict[str, None] = {}
    lines = [line for line in results if role_of(line) != "search"]
    for line in sorted(lines, key=lambda line: role_of(line) == "baseline"):
        directions |= line.get("directions") or {}
        auxiliary |= dict.fromkeys(line.get("auxiliary") or ())
        for task, metric in main_metrics(line).items():
            if main.get(task, "loss") == "loss":  # a line that says nothing may be of a run that measured less
                main[task] = metric
    return Judged(list(main), main, directions, groups.get(SINGLE), list(auxiliary))


def mean_ranks(joint: Mapping[str, Runs], judged: Judged) -> dict[str, float]:
    """Rank the methods by the main metric of every task at every seed that all of them have."""
    seeds = [seed for seed in next(iter(joint.values())).metrics if all(seed in r.metrics for r in joint.values())] \
        if joint else []  # fmt: skip
    ranks: list[Sequence[float]] = []
    for seed in seeds:
        for task, metric in judged.counted.items():
            sign = -1 if judged.directions.get(metric, True) else 1
            values = [sign * runs.metrics[seed].get(f"eval_{task}_{metric}", nan) for runs in joint.values()]
            ranks.append(rankdata([inf if value != value else value for value in values]).tolist())
    return {name: fmean(rank[index] for rank in ranks) for index, name in enumerate(joint)} if ranks else {}


def overall_scores(
    methods: Sequence[MethodSummary], joint: Mapping[str, Runs], judged: Judged, reference: str | None
) -> tuple[str, dict[str, Score]]:
    """Choose the one number by which methods are compared."""
    if any(method.delta_m.values for method in methods):
        return f"{name_of(judged)} %", {method.method: method.delta_m for method in methods}
    if any(method.delta_m_loss.values for method in methods):
        return "Δm loss %", {method.method: method.delta_m_loss for method in methods}
    if reference is None:
        return f"{name_of(judged)} %", {}
    for metric_of, name in ((judged.counted, "Δ"), (dict.fromkeys(judged.counted, "loss"), "Δ loss")):
        found = {name: against_runs(runs, joint[reference], judged, metric_of) for name, runs in joint.items()}
        if any(one.values for one in found.values()):
            return f"{name} % against `{reference}`", found
    return f"Δ % against `{reference}`", found


def against_runs(runs: Runs, base: Runs, judged: Judged, metric_of: Mapping[str, str]) -> Score:
    """Compute the mean relative change of all tasks against another method at the same seeds."""
    keys = {f"eval_{task}_{metric}": judged.directions.get(metric, True) for task, metric in metric_of.items()}
    values = {}
    for seed, metrics in runs.metrics.items():
        other = base.metrics.get(seed, {})
        if all(key in metrics and other.get(key) for key in keys):  # neither missing nor 0
            chosen = {key: metrics[key] for key in keys}
            values[seed] = delta_m(chosen, other, keys)
    return score_over_seeds(values)


def against(reference: str | None, scores: Mapping[str, Score]) -> list[Comparison]:
    """Compare every method with the reference."""
    if reference not in scores:
        return []
    others = {name: of for name, of in scores.items() if name != reference}
    return adjust_with_holm(
        [compare_scores(name, str(reference), of, scores[str(reference)]) for name, of in others.items()]
    )


def transfers(methods: Sequence[MethodSummary]) -> list[Comparison]:
    """Compare every method on every task with the single-task baseline."""
    found = []
    for method in methods:
        for task, change in method.changes.items():
            zero = score_over_seeds(dict.fromkeys(change.seeds, 0.0))
            found.append(compare_scores(method.method, SINGLE, change, zero, task))
    return adjust_with_holm([one for one in found if one.seeds or one.difference is not None])


def searches(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """List the runs that searched for a learning rate."""
    chosen = {(line.get("method"), line.get("task")): line.get("learning_rate") for line in results
              if role_of(line) != "search"}  # fmt: skip
    keys = ("method", "task", "seed", "learning_rate", "search_score")
    return [
        {key: line.get(key) for key in keys}
        | {"chosen": chosen.get((line.get("method"), line.get("task"))) == line.get("learning_rate")}
        for line in results
        if role_of(line) == "search"
    ]


def peeking_notes(methods: Sequence[MethodSummary]) -> list[str]:
    """Name the methods that have seen losses of the rows they are measured on."""
    classes = {method.method: COMBINERS.get(method.combiner) for method in methods}
    peeking = [name for name, cls in classes.items() if cls is not None and cls.observes == "validation"]
    return [f"`{name}` observes losses of the held-out rows while it trains: for it they are not unseen."
            for name in peeking]  # fmt: skip


def pull_notes(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Describe each task's share of the rows and its pull, once for all methods in which they agree."""
    found: dict[str, list[str]] = {}
    for line in results:
        shares = shares_text(line)
        if role_of(line) == "method" and shares:
            found.setdefault(shares, []).append(f"`{method_of(line)}`")
    return [
        f"Share of the rows / pull at the shared parameters under {', '.join(dict.fromkeys(methods))}: {parts}."
        for parts, methods in found.items()
    ]


def shares_text(line: Mapping[str, Any]) -> str:
    """Format each task's share of the rows and its pull in a run; empty where its line has none."""
    rows, pull = line.get("rows"), line.get("pull")
    if not rows or not pull or not sum(rows.values()):
        return ""
    return ", ".join(f"{task} {count / sum(rows.values()):.1%} / {pull[task]:.1%}" for task, count in rows.items())


def edge_notes(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name the methods whose best learning rate is the smallest or the largest that was tried."""
    tried: dict[tuple[Any, Any], set[float]] = {}
    chosen: dict[tuple[Any, Any], float] = {}
    for line in results:
        key = (line.get("method"), line.get("task"))
        if role_of(line) == "search":
            tried.setdefault(key, set()).add(line["learning_rate"])
        elif "learning_rate" in line:
            chosen[key] = line["learning_rate"]
    notes = []
    for (method, task), rates in tried.items():
        rate = chosen.get((method, task))
        if rate in {min(rates), max(rates)}:
            which = "smallest" if rate == min(rates) else "largest"
            of = f" on task `{task}`" if task else ""
            notes.append(f"The best learning rate of `{method}`{of}, {rate:g}, is the {which} that was tried.")
    return notes
