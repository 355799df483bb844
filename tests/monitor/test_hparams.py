"""Rows of the HParams table, read back with the plugin's own reader."""

from math import nan

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata, plugin_data_pb2

from mtl_opt.monitor import write_hparams


def rows_of(folder):
    events = EventAccumulator(str(folder)).Reload()
    found = events.PluginTagToContent("hparams")
    parsed = {tag: plugin_data_pb2.HParamsPluginData.FromString(content) for tag, content in found.items()}
    return events, parsed


def test_a_row_holds_what_was_set_and_what_came_of_it(tmp_path):
    settings = {
        "combiner": "pcgrad",
        "learning_rate": 1e-4,
        "seed": 3,
        "norm_matched": True,
        "方法/名": "平均",
        "task": None,
    }
    write_hparams(tmp_path, settings, {"eval_情感_loss": 0.5, "eval_qa_loss": nan, "delta_m": None})
    events, parsed = rows_of(tmp_path)
    start = parsed[metadata.SESSION_START_INFO_TAG].session_start_info.hparams
    assert start["combiner"].string_value == "pcgrad"
    assert start["learning_rate"].number_value == 1e-4
    assert start["seed"].number_value == 3
    assert start["norm_matched"].string_value == "true"
    assert start["方法_名"].string_value == "平均"
    assert start["task"].string_value == ""
    experiment = parsed[metadata.EXPERIMENT_TAG].experiment
    assert {info.name.tag for info in experiment.metric_infos} == {
        "hparams/eval_情感_loss", "hparams/eval_qa_loss", "hparams/delta_m",
    }  # fmt: skip
    assert metadata.SESSION_END_INFO_TAG in parsed
    assert events.Tags()["scalars"] == ["hparams/eval_情感_loss"]
    assert events.Scalars("hparams/eval_情感_loss")[0].value == 0.5


def test_what_cannot_be_a_row_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one metric"):
        write_hparams(tmp_path, {"a": 1}, {})
    with pytest.raises(ValueError, match=r"hparams\['seeds'\]"):
        write_hparams(tmp_path, {"seeds": [1]}, {"loss": 1.0})
    assert not list(tmp_path.iterdir())
