"""What a comparison says, as plain numbers: the one source of tables and of the HTML report.

`summarise(results)` makes it from the lines of `results.jsonl`; its `asdict` goes to JSON as it is.
"""

from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from mtl_opt.evaluation.statistics import bootstrap_interval, mean_and_std


@dataclass(frozen=True)
class Score:
    """Hold one number of a method over its seeds.

    Attributes:
        seeds: Seeds that have the number at all.
        values: The number per seed; None where it is not finite.
        mean: Mean over the seeds; None where there is none or one is not finite: a run that diverged is not averaged
            away.
        std: Sample standard deviation; None for fewer than two seeds.
        low: Lower end of the 95 % bootstrap interval of the mean over seeds; None for fewer than two seeds.
        high: Its upper end.
    """

    seeds: list[int]
    values: list[float | None]
    mean: float | None
    std: float | None
    low: float | None
    high: float | None

    @property
    def num_non_finite(self) -> int:
        """Count the seeds whose number is not finite."""
        return sum(value is None for value in self.values)

    def at(self, seed: int) -> float | None:
        """Read the number at one seed.

        Args:
            seed: The seed.

        Returns:
            The number; None where it is missing or not finite.
        """
        return self.values[self.seeds.index(seed)] if seed in self.seeds else None


def score_over_seeds(values: dict[int, float]) -> Score:
    """Summarise one number, given per seed: its mean, spread and interval."""
    shown = [value if isfinite(value) else None for value in values.values()]
    finite = [value for value in shown if value is not None]
    if not finite or len(finite) < len(shown):
        return Score(list(values), shown, None, None, None, None)
    mean, deviation = mean_and_std(finite)
    low, high = bootstrap_interval(finite) or (None, None)
    return Score(list(values), shown, mean, deviation if isfinite(deviation) else None, low, high)


@dataclass(frozen=True)
class MethodSummary:
    """Hold everything about one method; all relative numbers are in percent and positive where they are better.

    Attributes:
        method: Its label.
        combiner: Its combiner; also `sharing`, `mixing`, `norm_matched` as in the lines.
        learning_rates: Learning rate per seed (of the first task for baselines).
        runs: Names of its run folders, of all seeds.
        scores: Task → metric → score, in the metric's own unit.
        changes: Task → relative change of the task's main metric against its single-task baseline of the same seed.
        delta_m: Mean of the changes of all tasks: Δm of the main metrics.
        delta_m_loss: Δm of the losses.
        reasons: Why seeds are left out of `delta_m` and `delta_m_loss`, a sentence each.
        mean_rank: Mean over tasks and seeds of its rank among the methods, 1 is best; only seeds that all methods have.
        worst_task: The task with the lowest mean change against its baseline.
        macro: Metric → mean over tasks, for metrics that all tasks have.
        micro: The same, tasks weighted by their held-out rows.
        costs: `steps_per_second`, `peak_memory_mb`, `train_runtime`, `steps`, `conflict_rate`, `overhead_seconds`.
        non_finite: What was not finite, a sentence per run.
    """

    method: str
    combiner: str
    sharing: str
    mixing: str
    norm_matched: bool
    learning_rates: dict[int, float]
    runs: list[str]
    scores: dict[str, dict[str, Score]]
    changes: dict[str, Score]
    delta_m: Score
    delta_m_loss: Score
    reasons: list[str]
    mean_rank: float | None
    worst_task: str | None
    macro: dict[str, Score]
    micro: dict[str, Score]
    costs: dict[str, Score]
    non_finite: list[str]


@dataclass(frozen=True)
class Comparison:
    """Compare two methods at the same seeds.

    Attributes:
        method: The one.
        other: The other; `single` for the baselines.
        task: The task whose main metric is compared; None for the overall score.
        seeds: Seeds that both have, all finite.
        difference: Mean of method − other in the direction "positive is better", in percent (points of the score).
        low: Lower end of its paired bootstrap interval.
        high: Its upper end.
        p: p-value of the paired t-test; None for too few seeds.
        p_holm: The same, adjusted for all comparisons of its list.
        verdict: "better", "worse", "not distinguishable", "too few seeds" or "not finite".
        sentence: The same in words.
    """

    method: str
    other: str
    task: str | None
    seeds: list[int]
    difference: float | None
    low: float | None
    high: float | None
    p: float | None
    p_holm: float | None
    verdict: str
    sentence: str


@dataclass(frozen=True)
class Summary:
    """Hold what a comparison says.

    Attributes:
        tasks: Names of the tasks.
        main_metric: Task → metric by which it is judged.
        directions: Metric → whether higher is better.
        seeds: All seeds.
        methods: The methods, in order of appearance.
        baselines: The single-task runs taken together as one method, None without them.
        score_name: What `comparisons` compares: "Δm %" against the baselines, or without them "Δ % against `sum`".
        scores: Method → that score.
        reference: The method that costs and comparisons refer to: `sum` where there is one, else the first.
        winner: Method with the highest mean score over the seeds that all methods with a finite score have; None where
            there is no such method or seed.
        winner_score: Its score at these seeds.
        verdict: One sentence: who won, and whether that can be told from chance.
        comparisons: The winner against every other method, adjusted together.
        against_reference: Every other method against the reference, adjusted together.
        transfer: Every method and task against the single-task baseline, adjusted together; negative transfer is
            `difference < 0`.
        search: Lines of learning-rate search: {method, task, seed, learning_rate, score, chosen} per run.
        notes: Sentences on what is left out or to be known.
    """

    tasks: list[str]
    main_metric: dict[str, str]
    directions: dict[str, bool]
    seeds: list[int]
    methods: list[MethodSummary]
    baselines: MethodSummary | None
    score_name: str
    scores: dict[str, Score]
    reference: str | None
    winner: str | None
    winner_score: Score | None
    verdict: str
    comparisons: list[Comparison]
    against_reference: list[Comparison]
    transfer: list[Comparison]
    search: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
