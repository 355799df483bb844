"""The cosine heatmap as an image."""

from math import nan

import numpy as np
import pytest
import torch

from mtl_opt.monitor.heatmap import (
    CELL,
    GREY,
    LABEL,
    LEVELS,
    colours,
    cosine_heatmap,
    layer_heatmap,
    task_label,
    text_outline,
)


def colour(cosine):
    return colours(np.array([cosine]))[0].tolist()


def rgb(text):
    return list(bytes.fromhex(text[1:]))


def test_result_is_a_colour_image():
    image = cosine_heatmap(torch.eye(3), ["qa", "sum", "angry"])
    assert image.dtype == torch.uint8
    assert image.ndim == 3
    assert image.shape[0] == 3
    assert min(image.shape[1:]) > 3 * CELL


def test_conflict_is_red_agreement_blue_and_nothing_nearly_white():
    red, _, blue = colour(-0.5)
    assert red > blue + 80
    red, _, blue = colour(0.5)
    assert blue > red + 80
    assert min(colour(0.0)) > 240


def test_scale_runs_from_end_to_end_and_nan_is_grey():
    assert [colour(level) for level in LEVELS] == [rgb(shade) for shade in LEVELS.values()]
    assert colour(nan) == rgb(GREY)


def area(image, wanted):
    """Count the pixels of a colour; more than a quarter of a cell is no accident of a letter's edge."""
    return (image == torch.tensor(wanted, dtype=torch.uint8)[:, None, None]).all(dim=0).sum().item() / CELL**2


def test_cells_have_the_colour_of_their_value():
    cosines = torch.tensor([[1.0, -0.77], [-0.77, 1.0]])
    assert 1 < area(cosine_heatmap(cosines, ["a", "b"]), colour(-0.77)) <= 2
    assert area(cosine_heatmap(torch.eye(2), ["a", "b"]), colour(-0.77)) < 0.25


def test_cells_without_a_value_are_grey():
    cosines = torch.tensor([[1.0, nan], [nan, nan]])
    assert 2 < area(cosine_heatmap(cosines, ["a", "b"]), rgb(GREY)) <= 3
    assert area(cosine_heatmap(torch.eye(2), ["a", "b"]), rgb(GREY)) < 0.25


def test_minus_zero_is_drawn_as_zero():
    exact, rounded = torch.eye(2), torch.tensor([[1.0, -1e-9], [-1e-9, 1.0]])
    assert torch.equal(cosine_heatmap(exact, ["a", "b"]), cosine_heatmap(rounded, ["a", "b"]))


def test_size_depends_on_the_tasks_alone():
    names = [f"task {i}" for i in range(5)]
    assert cosine_heatmap(torch.eye(5), names).shape == cosine_heatmap(torch.full((5, 5), nan), names).shape


def test_long_names_are_shortened_and_numbered():
    label = task_label(2, "extract the core of a complaint about a product")
    assert label.text.startswith("T3 extract")
    assert label.text.endswith("…")
    assert label.width <= LABEL


def test_a_name_that_cannot_be_drawn_is_its_number():
    assert task_label(11, "𒀀𒀁").text == "T12"  # cuneiform: in no font that is looked for
    assert task_label(0, " ").text == "T1"


@pytest.mark.parametrize(
    "tasks",
    [["only"], ["情感", "a b"], ["$x", "a\nb", "\ud800"], [f"a rather long task name, number {i}" for i in range(12)]],
)
def test_any_number_of_tasks_and_any_names_can_be_drawn(tasks):
    image = cosine_heatmap(torch.eye(len(tasks), dtype=torch.float64), tasks)
    assert (image < 128).any()


def test_cosines_of_other_tasks_are_refused():
    with pytest.raises(ValueError, match=r"must be \[3, 3\], got shape \(2, 2\)"):
        cosine_heatmap(torch.eye(2), ["a", "b", "c"])


def test_a_text_is_never_read_as_mathematics():
    assert text_outline("$a$", 14).width > 2 * text_outline("a", 14).width


def test_layers_stand_below_each_other_and_pairs_beside():
    values = torch.tensor([[0.9, -0.9], [0.0, float("nan")], [0.1, 0.2]])
    names = ["base_model.model.model.layers.0", "base_model.model.model.layers.1", "lm_head"]
    picture = layer_heatmap(values, names, [(0, 1), (0, 2)])
    taller = layer_heatmap(values.repeat(2, 1), names * 2, [(0, 1), (0, 2)])
    assert taller.shape[1] - picture.shape[1] == 3 * CELL
    assert taller.shape[2] == picture.shape[2]
    with pytest.raises(ValueError, match=r"must be \[3, 1\]"):
        layer_heatmap(values, names, [(0, 1)])


def test_a_cosine_whose_sign_is_not_known_stands_in_brackets_on_grey():
    cosines = torch.tensor([[1.0, -0.77], [-0.77, 1.0]])
    plain = cosine_heatmap(cosines, ["a", "b"])
    doubtful = cosine_heatmap(cosines, ["a", "b"], cosines < 0)
    assert area(plain, rgb(GREY)) < 0.25
    assert area(doubtful, rgb(GREY)) > 1
    assert area(doubtful, colour(-0.77)) < 0.25
