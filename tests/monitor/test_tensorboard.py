"""Event files, read back with TensorBoard's own reader."""

import re
import time
from io import BytesIO
from math import nan

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2

from mtl_opt.monitor.heatmap import cosine_heatmap
from mtl_opt.monitor.log_numbers import scalar_keys
from mtl_opt.monitor.tensorboard import TensorBoardWriter

TASKS = ["qa", "情感 分类", "t0.wiki[v1] (a|b)"]


def read(folder):
    return EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0, "tensors": 0}).Reload()


def text(events, tag):
    return events.Tensors(f"{tag}/text_summary")[-1].tensor_proto.string_val[0].decode()


@pytest.fixture
def writer(tmp_path):
    writer = TensorBoardWriter(tmp_path, TASKS)
    yield writer
    writer.close()


def test_scalars_stand_under_train_with_the_names_of_the_tasks(tmp_path, writer):
    written = {key: float(i) for i, key in enumerate(scalar_keys(TASKS))}
    writer.write(7, written, None)
    events = read(tmp_path)
    assert set(events.Tags()["scalars"]) == {f"train/{key}" for key in written}
    for key, value in written.items():
        (scalar,) = events.Scalars(f"train/{key}")
        assert (scalar.step, scalar.value) == (7, value)


def test_nan_is_left_out(tmp_path, writer):
    writer.write(1, {"loss": 1.0, "loss_qa": nan}, None)
    writer.write_evaluation(1, {"eval_qa_loss": nan})
    assert read(tmp_path).Tags()["scalars"] == ["train/loss"]


def test_everything_written_is_on_disk_before_closing(tmp_path, writer):
    writer.write(1, {"loss": 1.0}, None)
    writer.write_evaluation(1, {"eval_qa_loss": 2.0})
    assert set(read(tmp_path).Tags()["scalars"]) == {"train/loss", "eval/qa_loss"}


def test_heatmap_decodes_to_the_picture_that_was_drawn(tmp_path, writer):
    cosines = torch.eye(3)
    writer.write(3, {}, cosines)
    (image,) = read(tmp_path).Images("train/grad_cosines")
    decoded = Image.open(BytesIO(image.encoded_image_string))
    assert image.step == 3
    assert (decoded.height, decoded.width) == tuple(cosine_heatmap(cosines, TASKS).shape[1:])


def test_metrics_stand_under_eval(tmp_path, writer):
    writer.write_evaluation(5, {"eval_qa_loss": 1.5, "eval_情感 分类_exact_match": 0.25, "eval_loss": 2.0})
    events = read(tmp_path)
    assert set(events.Tags()["scalars"]) == {"eval/qa_loss", "eval/情感 分类_exact_match", "eval/loss"}
    assert events.Scalars("eval/情感 分类_exact_match")[0].value == 0.25


@pytest.mark.usefixtures("writer")
def test_layout_puts_all_series_of_a_kind_and_no_other_into_one_panel(tmp_path):
    events = read(tmp_path)
    content = events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0]
    charts = {c.title: c.multiline.tag for g in layout_pb2.Layout.FromString(content).category for c in g.chart}
    tags = [f"train/{key}" for key in scalar_keys(TASKS)] + [f"eval/{task}_loss" for task in TASKS]

    def shown(title):  # the plugin's rule: a tag is shown where `re.match` finds the pattern
        return [tag for tag in tags if any(re.match(pattern, tag) for pattern in charts[title])]

    assert shown("gradient cosines") == [tag for tag in tags if "grad_cos" in tag]
    assert shown("training losses") == [f"train/loss_{task}" for task in TASKS]
    assert shown("weights") == [f"train/weight_{task}" for task in TASKS]
    assert shown("gradient norms") == [f"train/grad_norm_{task}" for task in TASKS]
    assert shown("evaluation losses") == [f"eval/{task}_loss" for task in TASKS]
    assert shown("conflict rate") == ["train/conflict_rate"]
    more = ["train/corrected_cos_qa_情感 分类", "train/snr_qa", "train/share_qa", "shadow/angle_pcgrad"]
    more.append("train/condition_number")
    tags += more
    titles = ("cosines without sampling noise", "signal-to-noise", "shares of the update")
    titles += ("angle to the update taken (degrees)", "condition number of the Jacobian")
    assert [shown(title) for title in titles] == [[tag] for tag in more]


@pytest.mark.usefixtures("writer")
def test_text_maps_numbers_to_names(tmp_path):
    lines = text(read(tmp_path), "tasks").splitlines()
    assert lines[2:] == ["| T1 | qa |", "| T2 | 情感 分类 |", "| T3 | t0.wiki[v1] (a\\|b) |"]


def test_texts_keep_their_lines(tmp_path, writer):
    writer.write_text("config", "tasks:\n  问答: {weight: 1}\n")
    assert text(read(tmp_path), "config") == "    tasks:\n      问答: {weight: 1}"


def test_resuming_replaces_what_came_after_the_checkpoint(tmp_path):
    first = TensorBoardWriter(tmp_path, TASKS)
    for step in range(1, 6):
        first.write(step, {"loss": float(step)}, torch.eye(3))
    first.close()
    time.sleep(1)  # TensorBoard reads files in the order of the seconds in their names
    second = TensorBoardWriter(tmp_path, TASKS, purge_step=4)
    second.write(4, {"loss": 40.0}, torch.eye(3))
    second.close()
    events = read(tmp_path)
    assert [(s.step, s.value) for s in events.Scalars("train/loss")] == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 40.0)]
    assert [image.step for image in events.Images("train/grad_cosines")] == [1, 2, 3, 4]
    assert "| T1 | qa |" in text(events, "tasks")
    assert "custom_scalars__config__" in events.Tags()["tensors"]


def test_names_tags_cannot_hold_are_replaced_and_stay_apart(tmp_path):
    tasks = ["a/b", "a\nb", "a_b", "\ud800"]
    writer = TensorBoardWriter(tmp_path, tasks)
    writer.write(1, {f"loss_{task}": float(i) for i, task in enumerate(tasks)}, torch.eye(4))
    writer.write_evaluation(1, {f"eval_{task}_loss": float(i) for i, task in enumerate(tasks)})
    writer.close()
    events = read(tmp_path)
    for i, name in enumerate(["a_b", "a_b_2", "a_b_3", "_"]):
        assert events.Scalars(f"train/loss_{name}")[0].value == i
        assert events.Scalars(f"eval/{name}_loss")[0].value == i


def test_a_task_whose_name_starts_with_another_keeps_its_own_metrics(tmp_path):
    writer = TensorBoardWriter(tmp_path, ["q/a", "q/a_loss"])
    writer.write_evaluation(1, {"eval_q/a_loss": 1.0, "eval_q/a_loss_loss": 2.0})
    writer.close()
    events = read(tmp_path)
    assert events.Scalars("eval/q_a_loss")[0].value == 1.0
    assert events.Scalars("eval/q_a_loss_loss")[0].value == 2.0


def test_notes_are_a_text_of_their_step(tmp_path, writer):
    writer.write_notes(3, {})
    writer.write_notes(4, {"`Krum`: 任务太少.": 2, "`PCD`: x.": 1})
    events = read(tmp_path)
    (written,) = events.Tensors("train/notes/text_summary")
    assert written.step == 4
    assert text(events, "train/notes") == "    2 steps: `Krum`: 任务太少.\n    1 step: `PCD`: x."


def diagnosis(**changes):
    half = [[1.0, 0.5, None], [0.5, 1.0, None], [None, None, None]]
    known = {"step": 10, "condition_number": 2.5, "shares": [0.5, 0.75, -0.25], "layers": None, "shadows": None}
    found = {
        "cosines": half,
        "low": half,
        "high": half,
        "verdict": half,
        "signal_to_noise": [0.2, 0.1, 0.0],
        "steps": 50,
    }
    return {**known, "corrected": found, **changes}


def test_a_diagnosis_becomes_scalars_histograms_and_pictures(tmp_path, writer):
    layers = {f"model.layers.{i}": torch.eye(3).tolist() for i in range(2)}
    shadows = {"pcgrad": {"angle": 12.5}, "mgda": {"angle": None}}
    writer.write_diagnosis(diagnosis(layers=layers, shadows=shadows), torch.tensor([0.5, -0.25, -0.5]), draw=True)
    events = read(tmp_path)
    scalars = {tag: events.Scalars(tag)[0].value for tag in events.Tags()["scalars"]}
    wanted = {"train/condition_number": 2.5, "train/share_qa": 0.5, "train/share_情感 分类": 0.75}
    wanted |= {"train/share_t0.wiki[v1] (a|b)": -0.25, "train/snr_qa": 0.2, "train/snr_情感 分类": 0.1}
    wanted |= {"train/snr_t0.wiki[v1] (a|b)": 0.0, "train/corrected_cos_qa_情感 分类": 0.5, "shadow/angle_pcgrad": 12.5}
    assert scalars == {tag: pytest.approx(value) for tag, value in wanted.items()}
    histogram = events.Histograms("train/grad_cosines_of_steps")[0].histogram_value
    assert (histogram.min, histogram.max, histogram.num) == (-0.5, 0.5, 3)
    assert events.Histograms("train/corrected_cosines_of_pairs")[0].histogram_value.num == 1
    assert set(events.Tags()["images"]) == {"train/corrected_cosines", "train/layer_cosines"}


def test_without_window_layers_and_pairs_there_is_nothing_to_draw(tmp_path, writer):
    line = diagnosis(corrected=None)
    writer.write_diagnosis(line, torch.empty(0), draw=True)
    events = read(tmp_path)
    assert events.Tags()["images"] == events.Tags()["histograms"] == []
    assert len(events.Tags()["scalars"]) == 4


def test_of_very_many_pairs_those_that_conflict_most_are_drawn(tmp_path):
    writer = TensorBoardWriter(tmp_path, [f"任务{i}" for i in range(14)])  # 91 pairs
    matrix = torch.full((14, 14), 0.5)
    matrix[3, 9] = -0.9
    picture = writer.layer_picture({"layers.0": matrix.tolist()})
    writer.close()
    few = TensorBoardWriter(tmp_path, ["a", "b"]).layer_picture({"layers.0": [[1.0, 0.5], [0.5, 1.0]]})
    assert picture.shape[2] > 40 * 46 > few.shape[2]
    assert (picture[0] > picture[2] + 80).any()  # the red of the conflict is among them
