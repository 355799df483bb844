"""The task discriminator: reversed gradients for the features, its own for itself."""

import pytest
import torch
from references.sharing_reference import adversarial

from mtl_opt.batch import task_rows
from mtl_opt.models.sharing.parts.discriminator import TaskDiscriminator

IDS = (2, 0, 1, 0)


KEPT = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 0], [1, 1, 1]])


def judged(ids, kept):
    """Run a discriminator on random features; give it and the features."""
    torch.manual_seed(0)
    judge = TaskDiscriminator(4, 3, 0.3)
    z = torch.randn(len(ids), 3, 4, requires_grad=True)
    with task_rows(torch.tensor(ids)):
        from mtl_opt.batch import current_segments

        judge(z, current_segments(3), kept)
    return judge, z


@pytest.mark.parametrize("kept", [KEPT, None])
@pytest.mark.parametrize("ids", [IDS, (0, 2, 2, 0)])
def test_features_get_the_reversed_gradient_and_the_discriminator_its_own(ids, kept):
    judge, z = judged(ids, kept)
    terms = judge.take_row_terms()
    assert terms.tolist() == [0, 0, 0]
    assert judge.take_row_terms() is None
    mask = torch.ones(4, 3) if kept is None else kept
    wanted = adversarial(z, ids, mask, judge.classifier, 0.3, 3)
    for task in range(3):
        (found,) = torch.autograd.grad(terms[task], z, retain_graph=True)
        if wanted[task] is None:
            assert not found.any()
            continue
        (reversed_gradient,) = torch.autograd.grad(wanted[task], z, retain_graph=True)
        torch.testing.assert_close(found, reversed_gradient, rtol=1e-5, atol=1e-7)
    present = [loss for loss in wanted if loss is not None]
    own = torch.autograd.grad(judge.own_term(judge.take_sums()), [*judge.classifier.parameters()])
    plain = torch.autograd.grad(0.3 * sum(present) / len(present), [*judge.classifier.parameters()])
    torch.testing.assert_close(own, plain, rtol=1e-5, atol=1e-7)
    assert not judge.take_sums().any()


def test_sums_of_micro_batches_are_those_of_one_batch():
    whole, z = judged(IDS, KEPT)
    judge = TaskDiscriminator(4, 3, 0.3)
    judge.load_state_dict(whole.state_dict())
    from mtl_opt.batch import current_segments

    for part in (slice(0, 1), slice(1, 4)):
        with task_rows(torch.tensor(IDS[part])):
            judge(z[part], current_segments(3), KEPT[part])
    torch.testing.assert_close(judge.take_sums(), whole.take_sums())
