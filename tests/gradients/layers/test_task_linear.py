"""A wired layer computes what the layer computes, and adds weight gradients to the rows of the tasks."""

import pytest
import torch
from torch import nn

from mtl_opt.gradients import TaskGradients


class OnTokens(nn.Module):
    """An MLP on tokens: no token sees another."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 6, padding_idx=0)
        self.up = nn.Linear(6, 8)
        self.norm = nn.LayerNorm(8)
        self.scale = nn.RMSNorm(8)
        self.down = nn.Linear(8, 1, bias=False)

    def forward(self, ids):
        hidden = self.norm(torch.tanh(self.up(self.embed(ids))))
        turned = hidden.transpose(0, 1).contiguous().transpose(0, 1)  # not contiguous in memory
        return self.down(self.scale(turned)).squeeze(-1)


def rows_of(engine, model, inputs, ids):
    grads = TaskGradients(model, ["qa", "summary", "anger"], engine)
    with grads.rows(ids):
        squares = model(inputs).square()
        losses = [squares[ids == t].mean() if (ids == t).any() else squares.new_zeros(()) for t in range(3)]
        grads.backward(torch.stack(losses))
    return grads.jacobian


@pytest.mark.parametrize(
    "ids",
    [
        [[0, 0, 1, 1, 1], [1, 2, 2, 0, 0]],
        [[0, 0, 0, 0, 0], [2, 2, 2, 2, 2]],
        [[0, 1, 2, 0, 1], [2, 0, 1, 2, 0], [1, 2, 0, 1, 2]],
        [[0, 0], [1, 1], [2, 2]],
    ],
)
def test_packed_ids_give_the_rows_of_single_tokens(ids, row_error):
    model, ids = OnTokens(), torch.tensor(ids)
    tokens = torch.randint(0, 11, ids.shape)
    assert row_error(rows_of("one_pass", model, tokens, ids), rows_of("per_task", model, tokens, ids)) < 1e-6


@pytest.mark.parametrize("ids", [[0, 1, 2, 1], [0, 0, 1, 1, 2, 2]])
def test_rows_without_a_sequence_are_enough(ids, row_error):
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.LayerNorm(5), nn.Linear(5, 1))
    ids = torch.tensor(ids)
    x = torch.randn(len(ids), 3, requires_grad=True)
    found, wanted = (rows_of(engine, model, x, ids) for engine in ("one_pass", "per_task"))
    assert row_error(found, wanted) < 1e-6


def test_a_trainable_bias_beside_a_frozen_weight_gets_its_rows(row_error):
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.LayerNorm(5), nn.Linear(5, 1))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.endswith("bias"))
    ids, x = torch.tensor([0, 2, 1, 0]), torch.randn(4, 3)
    assert row_error(rows_of("one_pass", model, x, ids), rows_of("per_task", model, x, ids)) < 1e-6


def test_a_layer_called_twice_adds_both_calls(row_error):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x):
            return self.layer(torch.tanh(self.layer(x))).sum(-1)

    model, ids, x = Twice(), torch.tensor([0, 2, 1, 0]), torch.randn(4, 3)
    assert row_error(rows_of("one_pass", model, x, ids), rows_of("per_task", model, x, ids)) < 1e-6


def test_output_and_input_gradient_are_those_of_the_layer():
    model, x = nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5)), torch.randn(4, 3)
    plain_x, wired_x = x.clone().requires_grad_(), x.clone().requires_grad_()
    plain = model(plain_x)
    plain.square().sum().backward()
    model.zero_grad()
    grads = TaskGradients(model, ["qa", "anger"], "one_pass")
    with grads.rows(torch.tensor([0, 1, 1, 0])):
        wired = model(wired_x)
        grads.backward(torch.stack([wired[[0, 3]].square().sum(), wired[1:3].square().sum()]))
    assert torch.equal(wired, plain)
    assert torch.allclose(wired_x.grad, plain_x.grad, rtol=1e-5, atol=1e-6)


def test_hooks_of_a_wired_layer_still_run():
    model, seen = nn.Linear(3, 1), []
    model.register_forward_hook(lambda *_: seen.append("forward"))
    model.register_full_backward_hook(lambda *_: seen.append("backward"))
    rows_of("one_pass", model, torch.randn(3, 3, requires_grad=True), torch.tensor([0, 1, 2]))
    assert seen == ["forward", "backward"]


class WatchedRMSNorm(nn.RMSNorm):
    """Remembers whether it ran under autocast: on a GPU the output type of a norm depends on it."""

    def forward(self, x):
        self.seen = [*getattr(self, "seen", []), torch.is_autocast_enabled("cpu")]
        return super().forward(x)


@pytest.mark.parametrize("enabled", [True, False])
def test_a_layer_is_run_again_under_the_autocast_of_its_forward(enabled):
    model, ids = nn.Sequential(WatchedRMSNorm(4)), torch.tensor([0, 1, 1, 2])
    grads = TaskGradients(model, ["qa", "summary", "anger"], "one_pass")
    with grads.rows(ids), torch.autocast("cpu", torch.bfloat16, enabled=enabled):
        model(torch.randn(4, 4))  # the first run is tried, whatever the name of the layer
    model[0].seen.clear()
    with grads.rows(ids):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            squares = model(torch.randn(4, 4)).float().square()
        with torch.autocast("cpu", torch.bfloat16, enabled=not enabled):
            grads.backward(torch.stack([squares[ids == t].mean() for t in range(3)]))
    assert model[0].seen == [enabled] * 4  # once forward, once per task


def test_autocast_leaves_float64_alone(row_error):
    model, x, ids = nn.Linear(4, 1).double(), torch.randn(3, 4, dtype=torch.float64), torch.tensor([0, 1, 2])
    with torch.autocast("cpu", torch.bfloat16):
        found, wanted = (rows_of(engine, model, x, ids) for engine in ("one_pass", "per_task"))
    assert row_error(found, wanted) < 1e-12


class BelowEachOther(OnTokens):
    """The same with the tokens of all rows below each other after the embedding; `cut` leaves tokens out."""

    def __init__(self, cut=0):
        super().__init__()
        self.cut = cut

    def forward(self, ids):
        flat = self.embed(ids).flatten(0, 1)[self.cut :]
        found = self.down(self.scale(self.norm(torch.tanh(self.up(flat)))))
        return found.view(ids.shape) if not self.cut else found.mean() * ids


@pytest.mark.parametrize("ids", [[2, 0, 1, 0], [0, 0, 1, 1, 2, 2], [1], [[0, 1, 2], [2, 2, 0]]])
@pytest.mark.parametrize("engine", ["one_pass", "two_pass"])
def test_tokens_of_all_rows_below_each_other_get_their_rows_back(engine, ids, row_error):
    model, ids = BelowEachOther(), torch.tensor(ids)
    tokens = torch.randint(0, 11, (len(ids), 3))
    wanted = rows_of("per_task", model, tokens, ids)
    if engine == "one_pass":
        assert row_error(rows_of(engine, model, tokens, ids), wanted) < 1e-6
        return
    grads = TaskGradients(model, ["qa", "summary", "anger"], engine)
    with grads.rows(ids):
        squares = model(tokens).square()
        losses = [squares[ids == t].mean() if (ids == t).any() else squares.new_zeros(()) for t in range(3)]
        grads.backward(torch.stack(losses))
    torch.testing.assert_close(grads.gramian(), wanted @ wanted.T, rtol=1e-4, atol=1e-6)


def test_some_of_the_tokens_below_each_other_are_refused():
    with pytest.raises(ValueError, match=r"Layer `up` \(Linear\) got an input of shape \(11, 6\)"):
        rows_of("one_pass", BelowEachOther(cut=1), torch.randint(0, 11, (4, 3)), torch.tensor([0, 1, 2, 1]))
