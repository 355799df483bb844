"""What every process of `test_processes.py` runs: gradients over processes against those of one large batch."""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from references.jacobian_reference import Rows, join, random_rows, reference_jacobian, token_losses
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard

from mtl_opt import PCGrad
from mtl_opt.gradients import TaskGradients
from mtl_opt.models import enable_checkpointing

TASKS = ("qa", "summary", "投诉")
SHARES = (((0, 0, 1), (2, 0)), ((1, 2, 2, 1), (1, 1)))  # tasks of the micro-batches of each process


def build(lora: bool) -> nn.Module:
    """Build the same model in every process, with LoRA's B matrices off zero."""
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    config = LlamaConfig(**sizes, num_attention_heads=4, num_key_value_heads=2, use_cache=False)
    model = LlamaForCausalLM(config)
    if not lora:
        return model
    model = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear"))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    return model


def batches_of(rank: int) -> list[Rows]:
    """Draw the micro-batches of one process; any process can draw those of another."""
    torch.manual_seed(10 + rank)
    return [random_rows(ids) for ids in SHARES[rank]]


def reference(model: nn.Module) -> Tensor:  # [tasks, params]
    """Differentiate one large batch, in the order of the model's parameters."""
    rows = join([batch for rank in range(2) for batch in batches_of(rank)])
    found = reference_jacobian(model, token_losses, rows, len(TASKS))
    return torch.cat([gradient.flatten(1) for gradient in found.values()], 1)


def fill(grads: TaskGradients, model: nn.Module) -> None:
    """Take the micro-batches of this process."""
    for rows in batches_of(dist.get_rank()):
        with grads.rows(rows.ids):
            grads.backward(*token_losses(model, rows, grads.num_tasks))


def in_model_order(grads: TaskGradients, rows: Tensor) -> Tensor:
    """Lay columns out in the order of the model's parameters."""
    return torch.cat([rows[..., grads.buffer.tensors[name]] for name in grads.buffer.parameters], -1)


def error(found: Tensor, wanted: Tensor) -> float:
    """Measure the relative error."""
    return float((found - wanted).norm() / wanted.norm())


def data_parallel(engine: str, lora: bool) -> dict[str, float]:
    """Fill rows in two processes; bytes are compared with one buffer."""
    model = build(lora)
    wanted = reference(model)
    grads = TaskGradients(model, TASKS, engine)
    fill(grads, model)
    return {
        "jacobian": error(in_model_order(grads, grads.jacobian), wanted),
        "gramian": error(grads.gramian(), wanted @ wanted.T),
        "bytes": grads.processes.sent / (grads.jacobian.numel() * 4),
        "counts": float(grads.counts.sum()),
    }


def base_sharded(engine: str, checkpointing: bool) -> dict[str, float]:
    """Shard the frozen base, keep the adapters whole; recompute activations where asked."""
    model = build(True)
    wanted = reference(model)
    if checkpointing:
        enable_checkpointing(model)
    adapters = {p for p in model.parameters() if p.requires_grad}
    for layer in model.get_base_model().model.layers:
        fully_shard(layer, ignored_params=adapters)
    fully_shard(model, ignored_params=adapters)
    sharded = sum(hasattr(p, "to_local") for p in model.parameters())
    grads = TaskGradients(model, TASKS, engine)
    fill(grads, model)
    return {"jacobian": error(in_model_order(grads, grads.jacobian), wanted), "sharded": float(sharded)}


def all_sharded() -> dict[str, float]:
    """Shard everything; a row's columns are spread over the processes."""
    model = build(False)
    wanted = reference(model)
    for layer in model.model.layers:
        fully_shard(layer)
    fully_shard(model)
    grads = TaskGradients(model, TASKS, "auto")
    fill(grads, model)
    gramian = error(grads.gramian(), wanted @ wanted.T)
    layers = error(torch.stack(list(grads.gramian(by="layer").values())).sum(0), wanted @ wanted.T)
    weights = grads.combine(PCGrad())
    assert weights is not None
    combined = torch.cat([p.grad.full_tensor().flatten() for p in model.parameters()])
    norm = grads.clip(0.5)
    clipped = torch.cat([p.grad.full_tensor().flatten() for p in model.parameters()])
    return {
        "gramian": gramian,
        "layers": layers,
        "combined": error(combined, weights @ wanted),
        "norm": abs(norm / float(combined.norm()) - 1),
        "clipped": abs(float(clipped.norm()) / 0.5 - 1),
        "is_per_task": float(grads.engine.name == "per_task"),
    }


def halves() -> dict[str, float]:
    """Deal rows to halves by their position in the global step."""
    everyone = [batches_of(rank) for rank in range(2)]
    together = halves_of(everyone[dist.get_rank()], None)
    alone, _ = dist.new_subgroups(group_size=1)
    joined = [join([everyone[rank][micro] for rank in range(2)]) for micro in range(2)]
    single = halves_of(joined, alone)
    return {
        "two_sample": error(together.two_sample_gramian(), single.two_sample_gramian()),
        "jacobian": error(together.jacobian, single.jacobian),
        "asymmetry": error(together.two_sample_gramian(), together.two_sample_gramian().T),
    }


def halves_of(batches: list[Rows], group: dist.ProcessGroup | None) -> TaskGradients:
    """Fill the rows of both halves."""
    model = build(True)
    grads = TaskGradients(model, TASKS, "one_pass", halves=True, process_group=group)
    for rows in batches:
        with grads.rows(rows.ids):
            assert grads.owners is not None
            owned = Rows(rows.input_ids, rows.attention_mask, rows.labels, grads.owners)
            losses, counts = token_losses(model, owned, 2 * len(TASKS))
            grads.backward(losses.view(2, -1), counts.view(2, -1))
    return grads


def private() -> dict[str, float]:
    """Give every task a head; one process lacks a task."""
    torch.manual_seed(0)
    trunk, heads = nn.Linear(4, 5), nn.ModuleList(nn.Linear(5, 1) for _ in TASKS)
    model = nn.ModuleList([trunk, heads])
    x, ids = torch.randn(7, 4), torch.tensor([0, 0, 1, 0, 1, 1, 1])

    def losses(own: Tensor) -> tuple[Tensor, Tensor]:
        features = trunk(x[own])
        parts = [heads[t](features[ids[own] == t]).square().sum() for t in range(3)]
        counts = torch.bincount(ids[own], minlength=3)
        return torch.stack(parts) / counts.clamp(min=1), counts

    groups = {task: list(head.parameters()) for task, head in zip(TASKS, heads, strict=True)}
    grads = TaskGradients(model, TASKS, "per_task", private=groups)
    mine = torch.arange(7)[:2] if dist.get_rank() == 0 else torch.arange(7)[2:]
    grads.backward(*losses(mine))
    grads.combine(PCGrad())
    found = [head.weight.grad for head in heads]
    whole, _ = losses(torch.arange(7))
    wanted = [torch.autograd.grad(whole[t], heads[t].weight, retain_graph=True)[0] for t in range(2)]
    return {
        "qa": error(found[0], wanted[0]),
        "summary": error(found[1], wanted[1]),
        "absent_is_none": float(found[2] is None),
    }


def main() -> None:
    """Run every case; process 0 writes what was found."""
    dist.init_process_group("gloo")
    found = {f"data_parallel_{e}_{'lora' if lora else 'full'}": data_parallel(e, lora)
             for e in ("one_pass", "per_task") for lora in (True, False)}  # fmt: skip
    found |= {f"base_sharded_{e}_{'recomputed' if again else 'kept'}": base_sharded(e, again)
              for e in ("one_pass", "per_task") for again in (True, False)}  # fmt: skip
    found |= {"all_sharded": all_sharded(), "halves": halves(), "private": private()}
    if dist.get_rank() == 0:
        Path(sys.argv[1]).write_text(json.dumps(found), encoding="utf-8")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
