"""Affinity: lookahead against steps taken by hand, cosines averaged."""

import math

import pytest
import torch
from tiny_run import config_of

from mtl_opt.affinity.layer_conflict import MeasuredConflict
from mtl_opt.affinity.task_affinity import LookaheadWatch, cosine_affinity, lookahead, lookahead_affinity
from mtl_opt.batch import task_rows
from mtl_opt.models import task_losses
from mtl_opt.training import train
from mtl_opt.training.run.assembly import build_run
from mtl_opt.training.setup.data import prepare

QUICK = {"max_new_tokens": 1, "rows_per_task": 2}


@pytest.mark.parametrize("sharing", ["hard", "private_layers"])
def test_lookahead_is_a_step_taken_by_hand_and_taken_back(settings, sharing):
    config = config_of(settings, **QUICK, sharing=sharing, gradient_accumulation_steps=2, lora_dropout=0.2)
    run = build_run(config, prepare(config))
    model, grads = run.parts.model, run.parts.grads
    with torch.no_grad():
        for parameter in grads.buffer.parameters.values():
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.train()
    batches = run.next_batches()
    for batch in batches:
        with grads.rows(batch.task_ids):
            grads.backward(*task_losses(model, batch, 3))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    found = lookahead(run.parts, batches, 0.01)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert model.training
    model.eval()

    def losses():
        sums, totals = torch.zeros(3), torch.zeros(3)
        with torch.no_grad():
            for batch in batches:
                with task_rows(batch.task_ids):
                    each, counts = task_losses(model, batch, 3)
                sums, totals = sums + each * counts, totals + counts
        return sums / totals

    start = losses()
    for task in range(3):
        row = grads.jacobian[task]
        step = 0.01 * math.sqrt(len(row)) * row / row.norm()
        with torch.no_grad():
            for name, parameter in grads.buffer.parameters.items():
                parameter.sub_(step[grads.buffer.tensors[name]].view(parameter.shape))
            assert torch.allclose(found[task].float(), 1 - losses() / start, atol=1e-5)
            for name, parameter in grads.buffer.parameters.items():
                parameter.copy_(before[name])
    assert (found.diagonal() > 0).all()  # a step for a task helps it


def test_looking_ahead_changes_nothing_of_what_is_learnt(settings, tmp_path):
    plain = config_of(settings, **QUICK, lora_dropout=0.1, output_dir=str(tmp_path / "plain"))
    train(plain)
    watched = config_of(settings, **QUICK, lora_dropout=0.1, output_dir=str(tmp_path / "watched"))
    train(watched, watch=lambda run: LookaheadWatch(run, 2))
    both = [(tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("plain", "watched")]
    assert both[0] == both[1]
    assert lookahead_affinity(tmp_path / "watched").shape == (3, 3)


def test_cosines_are_averaged_over_training_and_all_blocks():
    rows = torch.randn(2, 6, 3, 5, dtype=torch.float64)
    rows[:, 2, 1] = 0  # absent once
    steps = {f"layers.{i}": rows[i] @ rows[i].mT for i in range(2)}
    none = {name: torch.empty(0, 3, 3) for name in steps}
    found = cosine_affinity(MeasuredConflict(["a", "b", "c"], dict.fromkeys(steps, 1), steps, none))
    whole = rows.transpose(0, 1).transpose(1, 2).flatten(2)  # [steps, tasks, params]
    for i in range(3):
        for j in range(3):
            each = [torch.cosine_similarity(s[i], s[j], dim=0) for s in whole if s[i].norm() * s[j].norm() > 0]
            assert float(found[i, j]) == pytest.approx(float(torch.stack(each).mean()))
