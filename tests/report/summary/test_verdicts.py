"""Who won, and what may be said of it: only what was tested, at the seeds that all share."""

import pytest
from references.comparison_folder import only_scores

from mtl_opt.report import summarise

RISING = [0.001 * seed for seed in range(8)]


def scores(method, values):
    return [only_scores(method, seed, value) for seed, value in values.items()]


def baselines(seeds):
    return [only_scores("single", seed, 0.5, task=task) for seed in seeds for task in ("qa", "情感")]


def steady(method, level, seeds):
    """A method near a level: seeds differ a little, so that differences can be tested."""
    return scores(method, {seed: level + RISING[seed] * (1 + (seed + len(method)) % 2) for seed in seeds})


def verdicts(summary):
    return {one.other: one.verdict for one in summary.comparisons}


@pytest.mark.parametrize("seeds", [2, 5])
def test_where_every_rival_diverged_nothing_was_tested_and_none_is_said_to_be_worse(seeds):
    diverged = scores("pcgrad", dict.fromkeys(range(seeds), 0.6) | {0: None})
    summary = summarise([*steady("sum", 0.5, range(seeds)), *diverged, *baselines(range(seeds))])
    assert (summary.winner, verdicts(summary)) == ("sum", {"pcgrad": "not finite"})
    assert summary.verdict == (
        "`sum` is the only method with a finite mean Δm %: no other method has finite results at the same seeds, "
        "and nothing was tested."
    )


def test_better_is_said_of_those_that_were_tested_and_only_of_them():
    diverged = scores("pcgrad", {0: None, 1: 0.9, 2: 0.9, 3: 0.9, 4: 0.9})
    summary = summarise([*steady("sum", 0.6, range(5)), *steady("mean", 0.5, range(5)), *diverged,
                         *baselines(range(5))])  # fmt: skip
    assert verdicts(summary) == {"mean": "better", "pcgrad": "not finite"}
    assert "better than every other method that has finite results (Holm-adjusted p < 0.05)" in summary.verdict
    close = summarise([*steady("sum", 0.6, range(5)), *steady("mgda", 0.6, range(5)), *steady("mean", 0.5, range(5)),
                       *baselines(range(5))])  # fmt: skip
    assert close.winner in {"sum", "mgda"}
    assert "it is not distinguishable from" in close.verdict
    assert "It is better than `mean` (Holm-adjusted p < 0.05)." in close.verdict


def test_a_seed_that_only_one_method_has_does_not_make_it_the_winner():
    one = [*steady("sum", 0.50, range(5)), *scores("sum", {7: 0.95})]
    other = steady("pcgrad", 0.52, range(5))
    summary = summarise([*one, *other, *baselines([*range(5), 7])])
    assert summary.scores["sum"].mean > summary.scores["pcgrad"].mean
    assert (summary.winner, verdicts(summary)) == ("pcgrad", {"sum": "better"})
    assert summary.winner_score.seeds == [0, 1, 2, 3, 4]
    assert (
        "The methods are compared over the seeds that all with a finite score have (0, 1, 2, 3, 4); left out of that: "
        "seed 7 of `sum`." in summary.notes
    )
    assert not any("left out of that" in note for note in summarise([*other, *baselines(range(5))]).notes)


def test_every_comparison_of_the_winner_is_over_the_same_seeds():
    lines = [*steady("sum", 0.5, range(8)), *steady("mean", 0.51, range(5)), *steady("pcgrad", 0.52, range(1, 8))]
    summary = summarise([*lines, *baselines(range(8))])
    assert {tuple(one.seeds) for one in summary.comparisons} == {(1, 2, 3, 4)}
    assert summary.winner == "pcgrad"
    assert all(one.difference >= 0 for one in summary.comparisons)


def test_without_a_shared_seed_nothing_can_be_compared():
    summary = summarise([*steady("sum", 0.5, [0, 1]), *steady("pcgrad", 0.6, [2, 3]), *baselines(range(4))])
    assert (summary.winner, summary.winner_score, summary.comparisons) == (None, None, [])
    assert summary.verdict == (
        "Nothing can be compared: no seed is shared by all methods with a finite score (`sum`: 0, 1; `pcgrad`: 2, 3)."
    )


def test_a_method_that_diverged_at_a_seed_of_its_own_is_not_judged_by_the_others():
    diverged = scores("pcgrad", dict.fromkeys(range(5), 0.4) | {7: None})
    summary = summarise([*steady("sum", 0.5, range(5)), *diverged, *baselines([*range(5), 7])])
    assert verdicts(summary) == {"pcgrad": "not finite"}
    assert summary.against_reference[0].verdict == "not finite"


def test_worse_is_never_passed_over():
    from dataclasses import replace

    from mtl_opt.report.summary.verdicts import say_winner

    summary = summarise([*steady("sum", 0.6, range(5)), *steady("mean", 0.5, range(5)),
                         *steady("mgda", 0.4, range(5)), *baselines(range(5))])  # fmt: skip
    mean, mgda = summary.comparisons
    said = say_winner("sum", "Δm %", [replace(mean, verdict="worse"), mgda], summary.scores)
    assert said == "`sum` has the highest mean Δm %, but it is worse than `mean` (Holm-adjusted p < 0.05)."
