"""What `metric_for_best_model` means, and what it may not be."""

import pytest
from tiny_run import config_of

from mtl_opt.errors import InputError, UnknownNameError
from mtl_opt.training.setup.data import prepare
from mtl_opt.training.setup.selection import Selection, selection_of

METRICS = {
    "eval_qa_loss": 1.0, "eval_摘要_loss": 2.0, "eval_anger_loss": 3.0, "eval_qa_exact_match": 0.5,
    "eval_摘要_exact_match": 0.25, "eval_anger_exact_match": 1.0,
}  # fmt: skip


def chosen(settings, **changes) -> Selection:
    config = config_of({**settings, **changes})
    found = selection_of(config, prepare(config))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("name", "value", "higher"),
    [
        ("mean", (0.5 + 0.25 + 1.0) / 3, True),
        ("worst", 0.25, True),
        ("loss", 2.0, False),
        ("eval_loss", 2.0, False),
        ("摘要/exact_match", 0.25, True),
        ("anger/loss", 3.0, False),
        ("eval_qa_exact_match", 0.5, True),
    ],
)
def test_evaluations_are_judged_by_what_is_named(settings, name, value, higher):
    for agreeing in (None, higher):
        found = chosen(settings, metric_for_best_model=name, greater_is_better=agreeing)
        assert found.value(METRICS) == pytest.approx(value)
        assert found.higher is higher
    with pytest.raises(InputError, match=f"`greater_is_better: {str(not higher).lower()}` contradicts"):
        chosen(settings, metric_for_best_model=name, greater_is_better=not higher)


def test_metrics_of_both_directions_are_averaged_as_worths_and_helping_tasks_are_left_out(settings):
    settings["tasks"]["qa"]["metrics"] = ["perplexity"]
    settings["tasks"]["anger"]["role"] = "auxiliary"
    metrics = {**METRICS, "eval_qa_perplexity": 4.0}
    assert chosen(settings).value(metrics) == pytest.approx((0.25 + 0.25) / 2)
    assert chosen(settings).value({**metrics, "eval_qa_perplexity": float("nan")}) is None


@pytest.mark.parametrize("name", ["summary/exact_match", "qa/rougeL", "rouge", "eval_rouge-l"])
def test_what_is_not_measured_is_refused(settings, name):
    with pytest.raises(UnknownNameError, match="metric_for_best_model"):
        chosen(settings, metric_for_best_model=name)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"early_stopping_patience": 2}, "`early_stopping_patience: 2` looks at the evaluations during the run"),
        ({"load_best_model_at_end": True}, "`load_best_model_at_end: true` looks at the evaluations during the run"),
        ({"early_stopping_threshold": 0.1}, "`early_stopping_threshold: 0.1` goes with `early_stopping_patience`"),
        ({"save_strategy": "best"}, "`save_strategy: best` goes with `load_best_model_at_end: true`"),
        ({"early_stopping_steps": 0, "eval_steps": 1}, "`early_stopping_patience` must be at least 1"),
        ({"metric_for_best_model": "qa/rouge"}, "metric_for_best_model"),
    ],
)
@pytest.mark.parametrize("verb", ["train", "plan"])
def test_a_setting_that_cannot_act_is_refused(settings, refused, changes, words, verb):
    assert words in refused({**settings, **changes}, verb=verb)


def test_runs_of_llama_factory_stop_early(settings):
    given = {"early_stopping_steps": 3, "eval_strategy": "steps", "eval_steps": 2, "save_strategy": "best"}
    config = config_of({**settings, **given, "load_best_model_at_end": True, "metric_for_best_model": "eval_loss"})
    assert (config.early_stopping_patience, config.save_steps, config.eval_steps) == (3, None, 2)


def test_without_held_out_rows_there_is_nothing_to_judge(settings, refused):
    settings["tasks"] = {"qa": {"file": settings["tasks"]["qa"]["file"]}}
    changes = {"val_size": 0, "eval_steps": 1, "load_best_model_at_end": True}
    assert "`load_best_model_at_end` looks at held-out rows" in refused({**settings, **changes})


def test_a_comparison_refuses_a_metric_of_one_task_beside_baselines(settings, refused):
    settings |= {"combiners": ["sum"], "seeds": [0], "metric_for_best_model": "qa/exact_match"}
    assert "baselines train others alone" in refused(settings, verb="compare")


def test_group_and_share_measure_whole_runs(settings, refused):
    settings |= {"early_stopping_patience": 2, "eval_steps": 1}
    for verb in ("group", "share"):
        assert f"`mtl-opt {verb}` measures a run of all its steps" in refused(settings, verb=verb)
