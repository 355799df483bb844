"""A tiny model with a way of sharing in it, and a batch of three tasks: what the tests of sharing share."""

from typing import Any

import torch
from torch import nn
from transformers import OPTConfig, OPTForCausalLM

from mtl_opt import Sum, TaskGradients
from mtl_opt.batch import TaskBatch, task_rows
from mtl_opt.examples.tiny_llama import new_llama, train_tokenizer
from mtl_opt.models import LoraSettings, build_sharing, private_parameters, row_terms, share, task_losses
from mtl_opt.models.sharing import LinearLayer, SharingContext

TASKS = ("qa", "摘要", "anger")
LORA = LoraSettings(rank=3, alpha=6)


def make_model(
    name: str, *, seed: int = 0, tasks: tuple[str, ...] = TASKS, num_layers: int = 4, **arguments: Any
) -> Any:
    """Build an untrained Llama of four layers with a way of sharing, its second matrices drawn at random."""
    tokenizer = train_tokenizer(["a few words of text", "几个汉字"], vocab_size=270)
    model = new_llama(tokenizer, hidden_size=16, num_layers=num_layers, num_heads=2, seed=0)
    torch.manual_seed(seed)
    share(model, build_sharing(name, arguments), tasks, LORA)
    stir(model)
    return model


def stir(model: nn.Module, seed: int = 1) -> None:
    """Move every trained parameter, so that no gradient is zero because a matrix still is."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))


def make_batch(ids: tuple[int, ...] = (0, 0, 1, 1, 2, 2), length: int = 7, seed: int = 2) -> TaskBatch:
    """Draw rows of random tokens, every second one padded."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(1, 250, (len(ids), length), generator=generator)
    mask = torch.ones_like(tokens)
    mask[1::2, -2:] = 0
    labels = torch.where(mask.bool(), tokens, -100)
    labels[:, :2] = -100
    return TaskBatch(tokens, mask, labels, torch.tensor(ids))


def losses_of(model: Any, batch: TaskBatch, num_tasks: int = len(TASKS)) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the tasks' losses, with the context of the rows open."""
    with task_rows(batch.task_ids):
        return task_losses(model, batch, num_tasks)


def make_opt(name: str, *, seed: int = 0, projected: int = 16, bare: bool = False, **arguments: Any) -> Any:
    """Build an untrained OPT, whose layers see the tokens of all rows below each other, with a way of sharing."""
    torch.manual_seed(seed)
    config = OPTConfig(
        vocab_size=260, hidden_size=16, num_hidden_layers=4, num_attention_heads=2, ffn_dim=24, dropout=0.0,
        word_embed_proj_dim=projected, max_position_embeddings=32, use_cache=False,
    )  # fmt: skip
    model = OPTForCausalLM(config)
    if not bare:
        share(model, build_sharing(name, arguments), TASKS, LORA)
        stir(model)
    return model


GROUPED = {"map": {"layers": "组"}, "groups": {"组": [["anger", "qa"], ["摘要"]]}}


def one_adapter(name, tasks=TASKS, lora=LORA, **arguments):
    """Build the adapter of one linear layer, moved from its start."""
    torch.manual_seed(0)
    sharing = build_sharing(name, arguments)
    layer = LinearLayer("up", nn.Linear(6, 5), 0, 1)
    model = nn.ModuleDict({"up": layer.module})
    sharing.apply(SharingContext(model, tasks, lora, (layer,)))
    adapter = model["up"].adapter
    stir(adapter)
    return adapter


def inputs(ids: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw inputs of five tokens for rows of these tasks."""
    ids = torch.tensor(ids)
    x = torch.randn(len(ids), 5, 6, generator=torch.Generator().manual_seed(3))
    return ids, x.requires_grad_()


def jacobian(model, batch, engine):
    """Take the rows and the private gradients of one step."""
    model.train()
    own = private_parameters(model)
    grads = TaskGradients(model, TASKS, engine, private=own, verify=engine == "one_pass")
    with grads.rows(batch.task_ids):
        grads.backward(*losses(model, batch))
    rows = grads.jacobian.clone()
    grads.combine(Sum())
    private = [torch.zeros(1) if p.grad is None else p.grad.clone() for group in own.values() for p in group]
    grads.zero()
    return rows, private


def losses(model, batch):
    """Compute the tasks' losses; of an encoder something that every token and the pooled output take part in."""
    if hasattr(model, "lm_head"):
        return task_losses(model, batch, len(TASKS))
    found = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
    rows = found.last_hidden_state.square().mean((1, 2)) + found.pooler_output.sum(1)
    sums = torch.zeros(len(TASKS)).index_add(0, batch.task_ids, rows)
    counts = batch.task_ids.bincount(minlength=len(TASKS))
    terms = row_terms(model)
    return sums / counts.clamp(min=1) + (0 if terms is None else terms), counts
