import pytest
import torch

from benchmarks.sizes import SIZES
from benchmarks.workload import build_model, build_workload, shapes_of
from mtl_opt.batch import IGNORE_INDEX

CPU, TINY = torch.device("cpu"), SIZES["tiny"]


@pytest.fixture(scope="module")
def model():
    return build_model(TINY, CPU)


def test_equal_rows_fill_the_batch_without_padding(model):
    work = build_workload(model, TINY, 4)
    assert work.input_ids.shape == (TINY.rows, TINY.length)
    assert work.attention_mask is None
    assert work.task_ids.bincount().tolist() == [4, 4, 4, 4]
    assert work.counts.tolist() == [4 * 7] * 4


@pytest.mark.parametrize("num_tasks", [2, 4, 8, 16])
def test_ragged_tasks_differ_in_rows_and_lengths(model, num_tasks):
    shapes = shapes_of(TINY, num_tasks, "ragged")
    assert len({rows for rows, _ in shapes}) > 1
    assert len({length for _, length in shapes}) == min(num_tasks, 4)
    work = build_workload(model, TINY, num_tasks, "ragged")
    assert work.task_ids.bincount().tolist() == [rows for rows, _ in shapes]
    assert work.counts.tolist() == [rows * (length - 1) for rows, length in shapes]


def test_every_second_task_begins_as_the_one_before_it(model):
    for rows in ("equal", "ragged"):
        work = build_workload(model, TINY, 4, rows)
        first, second = (work.input_ids[work.task_ids == task] for task in (0, 1))
        shared = work.labels[work.task_ids == 1].ne(IGNORE_INDEX).sum(1)[0] // 2
        assert torch.equal(first[0, :shared], second[0, :shared])
        assert not torch.equal(first[0], second[0])


def test_a_padded_row_has_the_loss_that_it_has_alone(model):
    work = build_workload(model, TINY, 4, "ragged")
    alone = []
    for task, (rows, length) in enumerate(shapes_of(TINY, 4, "ragged")):
        ids = work.input_ids[work.task_ids == task][:, :length]
        loss = model(input_ids=ids, labels=ids).loss  # the library's own: mean over all tokens of equally long rows
        assert len(ids) == rows
        alone.append(loss if task % 2 == 0 else -loss)
    assert torch.allclose(work.losses(), torch.stack(alone), rtol=1e-5)


def test_groups_of_rows_have_the_sign_of_their_task(model):
    work = build_workload(model, TINY, 2)
    owners = work.task_ids + 2 * (torch.arange(len(work.task_ids)) % 2)
    halves = work.losses_of(owners, work.counts.repeat(2) / 2)
    assert torch.allclose(halves.view(2, 2).mean(0), work.losses(), rtol=1e-5)
    assert (halves.sign() == torch.tensor([1, -1, 1, -1])).all()


def test_tasks_must_divide_equal_rows(model):
    with pytest.raises(SystemExit, match="must divide the 16 rows of a step, got 3"):
        build_workload(model, TINY, 3)


def test_full_fine_tuning_trains_every_parameter_and_lora_only_adapters(model):
    assert all(p.requires_grad for p in build_model(TINY, CPU, "full").parameters())
    assert all(("lora_" in name) == p.requires_grad for name, p in model.named_parameters())
