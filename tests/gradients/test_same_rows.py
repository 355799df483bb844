"""Several losses on the same rows, or on forwards of their own, of any model: exact, or refused in one sentence."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import prune
from torch.utils.checkpoint import checkpoint

from mtl_opt import FAMO, MGDA, GradNorm, PCGrad, Sum, TaskGradients, UncertaintyWeighting, Weighted, backward
from mtl_opt.gradients.graph import reach_of


class Tick(torch.autograd.Function):
    """Count how often the backward runs through here."""

    runs = 0

    @staticmethod
    def forward(ctx, x):  # noqa: ARG004
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):  # noqa: ARG004
        Tick.runs += 1
        return gradient


class Heads(nn.Module):
    """A trunk, a head for each task, and a layer that nothing reaches."""

    def __init__(self, names=("a", "b")):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(4, 8), nn.Tanh())
        self.heads = nn.ModuleDict({name: nn.Linear(8, 1) for name in names})
        self.unused = nn.Linear(4, 4)

    def losses(self, x):
        z = self.trunk(x)
        return {name: (i + 1) * (head(z) - i).square().mean() for i, (name, head) in enumerate(self.heads.items())}


@pytest.fixture
def x():
    return torch.randn(16, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def plain(model, losses):
    """Return the gradients of each loss, by T calls of `autograd.grad`."""
    parameters = list(model.parameters())
    return [torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True) for loss in losses]


FORMS = {
    "list": lambda losses: list(losses.values()),
    "tuple": lambda losses: tuple(losses.values()),
    "stack": lambda losses: torch.stack(list(losses.values())),
    "by name": lambda losses: dict(reversed(losses.items())),
    "of shape [1]": lambda losses: [loss[None] for loss in losses.values()],
    "vector": lambda losses: torch.cat([loss[None] for loss in losses.values()]),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("combiner", [PCGrad, GradNorm, Sum, UncertaintyWeighting])
def test_every_form_of_losses_gives_shared_rows_and_private_heads(x, form, combiner):
    model = Heads().double()
    per_task = plain(model, model.losses(x).values())
    shared = torch.stack([torch.cat([g.flatten() for g in gradients[:2]]) for gradients in per_task])
    rule = combiner()
    rule.bind(["a", "b"])
    weights = backward(FORMS[form](model.losses(x)), model, rule)
    other = combiner()
    other.bind(["a", "b"])
    wanted = other(shared, torch.stack(list(model.losses(x).values())).detach())
    found = torch.cat([p.grad.flatten() for p in model.trunk.parameters()])
    torch.testing.assert_close(found, wanted)
    assert weights.shape == (2,)
    for number, head in enumerate(model.heads.values()):  # as they are, whatever the weights
        torch.testing.assert_close(head.weight.grad, per_task[number][2 + 2 * number])
        torch.testing.assert_close(head.bias.grad, per_task[number][3 + 2 * number])
    assert all(p.grad is None for p in model.unused.parameters())


@pytest.mark.parametrize(("combiner", "runs"), [(PCGrad, 6), (UncertaintyWeighting, 6), (Sum, 6)])
@pytest.mark.parametrize("stacked", [False, True])
def test_the_body_of_each_loss_runs_once(combiner, runs, stacked):
    net = nn.Linear(8, 8)
    losses = [Tick.apply(net(torch.randn(4, 8))).square().mean() for _ in range(6)]
    Tick.runs = 0
    backward(torch.stack(losses) if stacked else losses, net, combiner())
    assert Tick.runs == runs


def test_methods_of_losses_walk_a_common_trunk_once():
    net, x = nn.ModuleList([nn.Linear(8, 8), *(nn.Linear(8, 1) for _ in range(5))]), torch.randn(4, 8)
    for combiner, runs in ((PCGrad(), 5), (UncertaintyWeighting(), 1)):
        Tick.runs = 0
        z = Tick.apply(net[0](x))
        backward([head(z).square().mean() for head in net[1:]], net, combiner)
        net.zero_grad()
        assert Tick.runs == runs


@pytest.mark.parametrize("layers", ["last", ["trunk.0"]])
def test_the_last_layer_of_gradnorm_is_one_that_all_losses_reach(x, layers):
    model, rule = Heads().double(), GradNorm(alpha=0.0, lr=0.05, layers=layers)
    for _ in range(40):
        losses = model.losses(x)
        weights = backward({"a": 100 * losses["a"], "b": losses["b"]}, model, rule)
        model.zero_grad()
    assert weights[0] < 0.5 < 1.5 < weights[1]


def test_an_absent_task_is_left_alone_and_its_head_keeps_no_gradient(x):
    model, rule = Heads().double(), PCGrad()
    rule.bind(["a", "b"])
    backward(model.losses(x), model, rule)  # here the heads are found
    model.zero_grad()
    wanted = plain(model, [model.losses(x)["b"]])[0]
    for losses in ({"b": model.losses(x)["b"]}, {"a": None, "b": model.losses(x)["b"]}, [None, model.losses(x)["b"]]):
        assert backward(losses, model, rule).tolist() == [0, 1]
        for parameter, gradient in zip(model.parameters(), wanted, strict=True):
            if gradient is None:
                assert parameter.grad is None
            else:
                torch.testing.assert_close(parameter.grad, gradient)
        model.zero_grad(set_to_none=False)  # zeros are as good as None
    before = model.heads["a"].weight.detach().clone()
    torch.optim.AdamW([p for p in model.parameters() if p.grad is not None], 0.1, weight_decay=0.5).step()
    assert torch.equal(model.heads["a"].weight, before) or model.heads["a"].weight.grad is not None


def test_one_loss_of_many_is_weighed_where_everything_is_reached_by_it_alone(x):
    model = nn.Linear(4, 1).double()
    wanted = plain(model, [model(x).mean()])[0]
    rule = Weighted([3.0, 1.0])
    rule.bind(["a", "b"])
    backward([model(x).mean(), None], model, rule)
    torch.testing.assert_close(model.weight.grad, 3 * wanted[0])


@pytest.mark.parametrize("engine", ["per_task", "auto"])
def test_a_loss_that_is_0_over_0_spoils_nothing_where_losses_are_apart(engine):
    model, x = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)), torch.randn(6, 4)
    mask = torch.tensor([[1.0, 0.0]]).expand(6, 2)

    def losses():
        return [(model(x)[:, t].square() * mask[:, t]).sum() / mask[:, t].sum() for t in range(2)]

    wanted = torch.autograd.grad(losses()[0], model[0].weight)[0]
    for given in (losses(), torch.stack(losses())):
        grads = TaskGradients(model, ["a", "b"], engine)
        grads.backward(given, mask.sum(0))
        grads.combine(PCGrad())
        torch.testing.assert_close(model[0].weight.grad, wanted)
        grads.zero()
    together = (model(x).square() * mask).sum(0) / mask.sum(0)
    with pytest.raises(ValueError, match="task `b`, which is absent, is nan"):
        TaskGradients(model, ["a", "b"], engine).backward(together, mask.sum(0))


def test_auto_without_rows_is_per_task_with_every_task(x):
    model = Heads().double()
    grads = TaskGradients(model, ["a", "b"])
    assert grads.engine.name == "one_pass"
    grads.backward(model.losses(x))
    assert (grads.engine.name, grads.present) == ("per_task", [0, 1])
    rows = [torch.cat([torch.zeros_like(p).flatten() if g is None else g.flatten()
                       for p, g in zip(model.parameters(), gradients, strict=True)])
            for gradients in plain(model, model.losses(x).values())]  # fmt: skip
    torch.testing.assert_close(grads.jacobian.norm(dim=1), torch.stack(rows).norm(dim=1))


def test_a_loss_of_rows_that_are_not_there_is_refused_by_one_pass_and_taken_by_feature(x):
    model = Heads(("a", "b", "c")).double()
    grads = TaskGradients(model, ["a", "b", "c"], "one_pass")
    zeros = torch.zeros(16, dtype=torch.long)
    with grads.rows(zeros), pytest.raises(ValueError, match=r"no row of the batch is the task's.*engine='per_task'"):
        grads.backward(model.losses(x))
    private = {name: list(head.parameters()) for name, head in model.heads.items()}
    grads = TaskGradients(model, ["a", "b", "c"], "feature:trunk", private=private)
    with grads.rows(zeros):
        grads.backward(model.losses(x))
    assert grads.present == [0, 1, 2]
    grads.combine(MGDA())
    assert all(head.weight.grad is not None for head in model.heads.values())


@pytest.mark.parametrize("fused", [torch.optim.AdamW, torch.optim.SGD])
def test_gradients_have_the_strides_of_their_parameters(fused):
    moved = []
    for ours in (True, False):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
        model = model.to(memory_format=torch.channels_last)
        losses, optimizer = (
            list(model(torch.randn(4, 3, 8, 8)).square().mean(0)),
            fused(model.parameters(), 0.1, fused=True),
        )
        if ours:
            backward(losses, model, MeanOfRows())
        else:
            sum(losses).backward()
        assert model[0].weight.grad.stride() == model[0].weight.stride()
        optimizer.step()
        moved.append(model[0].weight.detach().clone())
    torch.testing.assert_close(*moved, rtol=1e-5, atol=1e-6)


class MeanOfRows(Sum):
    """Ask for rows, and add them."""

    requires = "gramian"


@pytest.mark.parametrize("engine", ["per_task", "one_pass"])
def test_what_no_present_loss_reaches_keeps_no_gradient(x, engine):
    model = Heads().double()
    grads = TaskGradients(model, ["a", "b"], engine)
    with grads.rows(torch.zeros(16, dtype=torch.long)):
        loss = model.heads["a"](model.trunk(x)).square().mean()
        grads.backward([loss, None])
    grads.combine(Sum())
    assert model.trunk[0].weight.grad is not None
    assert model.heads["b"].weight.grad is None
    assert model.unused.weight.grad is None


def test_reentrant_checkpoints_are_refused_where_rows_would_be_0():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.block, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
            self.embed.requires_grad_(False)

        def forward(self, x):
            return self.head(
                checkpoint(lambda h: self.block(h).tanh(), self.embed(x).requires_grad_(), use_reentrant=True)
            )

    model, x = Net(), torch.randn(3, 4)
    with pytest.raises(ValueError, match=r"reentrant checkpoint.*use_reentrant=False"):
        backward(list(model(x).square().mean(0)), model, PCGrad())
    with pytest.raises(ValueError, match="reentrant checkpoint"):
        TaskGradients(model, ["a", "b"], "per_task").backward(list(model(x).square().mean(0)))


@pytest.mark.parametrize("engine", ["auto", "per_task"])
def test_what_is_frozen_or_released_later_is_refused(x, engine):
    model = Heads().double()
    grads = TaskGradients(model, ["a", "b"], engine)
    model.trunk[0].bias.requires_grad_(False)
    with pytest.raises(ValueError, match=r"`trunk.0.bias` was frozen or released after"):
        grads.backward(model.losses(x))
    grads = TaskGradients(model, ["a", "b"], engine)
    model.trunk[0].bias.requires_grad_(True)
    with pytest.raises(ValueError, match=r"`trunk.0.bias` was frozen or released after"):
        grads.backward(model.losses(x))


def test_parameters_outside_the_model_are_named(x):
    model, head = nn.Linear(4, 4).double(), nn.Linear(4, 1).double()
    z = model(x)
    with pytest.raises(ValueError, match="2 trained parameters outside `model`"):
        backward([head(z).mean(), z.square().mean()], model, PCGrad())
    whole = nn.ModuleList([model, head])
    z = model(x)
    backward([head(z).mean(), z.square().mean()], whole, PCGrad())
    assert head.weight.grad is not None


@pytest.mark.parametrize("combiner", [UncertaintyWeighting, PCGrad])
def test_a_grad_scaler_changes_nothing_and_skips_an_overflow(x, combiner):
    found = []
    for scaler in (None, torch.amp.GradScaler("cpu", init_scale=2.0**10)):
        torch.manual_seed(0)
        model, rule = Heads().double(), combiner()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        for _ in range(3):
            backward(model.losses(x), model, rule, scaler=scaler)
            scaler.step(optimizer) if scaler else optimizer.step()
            scaler.update() if scaler else None
            optimizer.zero_grad()
        found.append([p.detach().clone() for p in model.parameters()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
    scaler, before = torch.amp.GradScaler("cpu", init_scale=2.0**10), model.trunk[0].weight.detach().clone()
    losses = {name: 1e300 * 1e6 * loss for name, loss in model.losses(x).items()}
    assert combiner is UncertaintyWeighting or backward(losses, model, rule, scaler=scaler) is None
    if combiner is PCGrad:
        scaler.step(optimizer)
        scaler.update()
        assert torch.equal(model.trunk[0].weight, before)
        assert scaler.get_scale() == 2.0**9


def test_graphs_are_kept_on_request(x):
    model = Heads().double()
    losses = model.losses(x)
    backward(losses, model, PCGrad(), retain_graph=True)
    torch.autograd.grad(losses["a"], model.trunk[0].weight)


def test_famo_that_nobody_observes_says_so_once():
    model, rule = nn.Linear(4, 2), FAMO()

    def run():
        for _ in range(30):
            backward(list(model(torch.ones(8, 4)).square().mean(0)), model, rule)
            model.zero_grad()

    with pytest.warns(RuntimeWarning, match=r"`observe\(losses\)` was not called in 20 steps"):
        run()


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        (lambda z: z.sum(), "a loss already summed over tasks cannot be taken apart"),
        (lambda z: [z.sum(), torch.tensor(0.0)], r"`losses\[1\]` .*depends on no trainable parameter; give None"),
        (lambda z: [z.sum(), z[0]], "loss of task `1` must be a tensor of one number, got shape"),
        (lambda z: [z.sum(), 0.5], "loss of task `1` must be a tensor of one number, got float"),
        (lambda z: [None, None], "at least one task must be present"),  # noqa: ARG005
    ],
)
def test_what_is_no_loss_is_named(x, losses, message):
    model = nn.Linear(4, 2).double()
    with pytest.raises(ValueError, match=message):
        backward(losses(model(x)), model, PCGrad())


def test_an_unknown_name_and_a_count_without_a_loss_are_named(x):
    model = Heads().double()
    grads = TaskGradients(model, ["a", "b"], "per_task")
    with pytest.raises(ValueError, match="`losses` names unknown tasks"):
        grads.backward({"a": model.losses(x)["a"], "mood": model.losses(x)["b"]})
    with pytest.raises(ValueError, match="loss of task `b` is None, and its count is 3"):
        grads.backward([model.losses(x)["a"], None], torch.tensor([2.0, 3.0]))


def test_hooks_and_complex_numbers_are_honoured_or_refused(x):
    model, ids = nn.Linear(4, 1).double(), torch.tensor([0] * 8 + [1] * 8)
    model.weight.register_hook(lambda gradient: gradient * 0.5)
    grads = TaskGradients(model, ["a", "b"])
    assert "hook" in grads.engine_reason
    with grads.rows(ids):
        squares = model(x).square().squeeze(1)
        grads.backward([squares[:8].mean(), squares[8:].mean()])
    model.zero_grad()
    squares = model(x).square().squeeze(1)
    (squares[:8].mean() + squares[8:].mean()).backward()
    torch.testing.assert_close(grads.jacobian.sum(0)[:4], model.weight.grad.flatten())
    late = nn.Linear(4, 1)
    late.weight.register_post_accumulate_grad_hook(lambda p: None)  # noqa: ARG005
    with pytest.raises(ValueError, match="`weight` has a hook that runs when autograd has accumulated"):
        TaskGradients(late, ["a", "b"])
    with pytest.raises(ValueError, match="`weight` is complex"):
        TaskGradients(nn.Linear(4, 4, dtype=torch.cfloat), ["a", "b"])


def test_derivatives_of_the_output_are_exact_per_task_and_refused_in_one_pass():
    torch.manual_seed(0)
    net, ids = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1)).double(), torch.tensor([0] * 6 + [1] * 2)
    x = torch.linspace(0, 1, 8, dtype=torch.float64).unsqueeze(1).requires_grad_()

    def losses():
        u = net(x)
        u_x = torch.autograd.grad(u.sum(), x, create_graph=True)[0]
        u_xx = torch.autograd.grad(u_x.sum(), x, create_graph=True)[0]
        return [(u_xx[:6] + 1).square().mean(), u[6:].square().mean()]

    wanted = [
        torch.autograd.grad(loss, list(net.parameters()), retain_graph=True, allow_unused=True) for loss in losses()
    ]
    grads = TaskGradients(net, ["pde", "boundary"], "per_task")
    with grads.rows(ids):
        grads.backward(losses())
    for task, gradients in enumerate(wanted):
        flat = torch.cat([torch.zeros_like(p).flatten() if g is None else g.flatten()
                          for p, g in zip(net.parameters(), gradients, strict=True)])  # fmt: skip
        torch.testing.assert_close(grads.jacobian[task], flat)
    with TaskGradients(net, ["pde", "boundary"]).rows(ids), pytest.raises(ValueError, match="use engine `per_task`"):
        losses()


def test_an_operation_in_place_may_follow_a_wired_layer():
    model, x, ids = (
        nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True), nn.Linear(4, 1)),
        torch.randn(4, 5, 3),
        [0, 0, 1, 1],
    )
    rows = []
    for engine in ("one_pass", "per_task"):
        grads = TaskGradients(model, ["a", "b"], engine)
        with grads.rows(torch.tensor(ids)):
            out = model(x).square().mean((1, 2))
            grads.backward([out[:2].mean(), out[2:].mean()])
        rows.append(grads.jacobian.clone())
    torch.testing.assert_close(*rows)


@pytest.mark.parametrize(
    "derive",
    [
        lambda: nn.utils.spectral_norm(nn.Conv1d(2, 2, 1)),
        lambda: prune.l1_unstructured(nn.Conv1d(2, 2, 1), "weight", 1),
        lambda: prune.l1_unstructured(nn.GroupNorm(1, 2), "weight", 1),
        lambda: prune.l1_unstructured(nn.LayerNorm(2), "weight", 1),
        lambda: prune.l1_unstructured(nn.Embedding(3, 2), "weight", 1),
    ],
)
def test_weights_that_a_hook_derives_are_refused_by_one_pass(derive):
    with pytest.raises(ValueError, match="a hook derives its weights before its forward"):
        TaskGradients(nn.Sequential(derive()), ["a", "b"], "one_pass")
    assert TaskGradients(nn.Sequential(derive()), ["a", "b"]).engine.name == "per_task"


def test_the_walk_of_a_graph_finds_owners_and_only_leaves():
    trunk, a, b = nn.Linear(2, 2), nn.Linear(2, 1), nn.Linear(2, 1)
    z = trunk(torch.randn(3, 2))
    found = reach_of([a(z).mean(), None, b(z).mean() + F.softplus(z).mean()])
    owners = {name: found.losses[id(m.weight)] for name, m in (("trunk", trunk), ("a", a), ("b", b))}
    assert owners == {"trunk": [0, 2], "a": [0], "b": [2]}
    assert len(found.leaves) == 6
    assert not found.reentrant
