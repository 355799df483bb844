import torch
from torch.nn import functional as F

from mtl_opt.batch import IGNORE_INDEX, TaskBatch
from mtl_opt.models import task_losses

LENGTHS = [(5, 2), (9, 6), (3, 1), (7, 3)]  # tokens, of which are prompt
OWNERS = [0, 0, 2, 2]


def ragged_batch(owners=OWNERS):
    width = max(length for length, _ in LENGTHS)
    ids, mask, labels = [], [], []
    for row, (length, prompt) in enumerate(LENGTHS):
        tokens = [(7 * row + i) % 50 + 1 for i in range(length)]
        ids.append(tokens + [0] * (width - length))
        mask.append([1] * length + [0] * (width - length))
        labels.append([IGNORE_INDEX] * prompt + tokens[prompt:] + [IGNORE_INDEX] * (width - length))
    return TaskBatch(torch.tensor(ids), torch.tensor(mask), torch.tensor(labels), torch.tensor(owners))


@torch.no_grad()
def literal_losses(model, batch, num_tasks):
    """Go through rows and tokens one by one, each row alone and without padding."""
    sums, counts = [0.0] * num_tasks, [0] * num_tasks
    for row, owner in enumerate(batch.task_ids.tolist()):
        length = int(batch.attention_mask[row].sum())
        logits = model(input_ids=batch.input_ids[row : row + 1, :length]).logits[0]
        for position in range(1, length):
            label = int(batch.labels[row, position])
            if label != IGNORE_INDEX:
                sums[owner] += float(-F.log_softmax(logits[position - 1].float(), -1)[label])
                counts[owner] += 1
    return [total / max(count, 1) for total, count in zip(sums, counts, strict=True)], counts


def test_losses_are_the_means_over_each_tasks_own_label_tokens(make_llama):
    model = make_llama()
    losses, counts = task_losses(model, ragged_batch(), 3)
    wanted, tokens = literal_losses(model, ragged_batch(), 3)
    assert counts.tolist() == tokens == [3 + 3, 0, 2 + 4]
    torch.testing.assert_close(losses, torch.tensor(wanted), rtol=1e-5, atol=1e-6)


def test_an_absent_task_has_loss_and_count_zero_and_no_gradient(make_llama):
    model = make_llama()
    losses, counts = task_losses(model, ragged_batch(), 3)
    assert losses[1] == 0
    assert counts[1] == 0
    losses[1].backward()
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def test_the_tokens_of_one_task_do_not_touch_the_loss_of_another(make_llama):
    model = make_llama()
    batch = ragged_batch()
    before, _ = task_losses(model, batch, 3)
    batch.input_ids[2:, 1:] = 3
    after, _ = task_losses(model, batch, 3)
    assert torch.equal(before[0], after[0])
    assert before[2] != after[2]


def test_a_batch_without_any_label_gives_zeros(make_llama):
    batch = ragged_batch()
    batch.labels[:] = IGNORE_INDEX
    losses, counts = task_losses(make_llama(), batch, 3)
    assert losses.tolist() == counts.tolist() == [0, 0, 0]


def test_losses_are_float32_under_bfloat16_autocast(make_llama):
    model = make_llama()
    exact, _ = task_losses(model, ragged_batch(), 3)
    with torch.autocast("cpu", torch.bfloat16):
        losses, _ = task_losses(model, ragged_batch(), 3)
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses, exact, rtol=0.02, atol=0.02)
