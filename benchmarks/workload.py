"""The model and the batch that every variant steps on: a Llama with random weights, with LoRA or trained in full."""

from dataclasses import dataclass
from itertools import cycle, islice
from typing import Literal

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.sizes import Size
from mtl_opt.batch import IGNORE_INDEX

Train = Literal["lora", "full"]
Rows = Literal["equal", "ragged"]

RAGGED = ((1, 1.0), (3, 0.5), (2, 0.75), (2, 0.25))
"""Of every four tasks: share of the rows, and length as a part of the longest. Few long rows beside many short ones."""


@dataclass(frozen=True)
class Workload:
    """Hold what a step works on.

    Attributes:
        model: The model; only what is trained requires gradients.
        input_ids: Tokens, padded on the right; the rows of one task are contiguous. `[batch, seq]`
        attention_mask: 1 for tokens, 0 for padding; None where nothing is padded. `[batch, seq]`
        labels: The tokens, `IGNORE_INDEX` where padded. `[batch, seq]`
        task_ids: Task of every row. `[batch]`
        row_counts: Label tokens of every row. `[batch]`
        counts: Label tokens of every task. `[tasks]`
        autocast: Whether the forward runs in bf16.
    """

    model: nn.Module
    input_ids: Tensor
    attention_mask: Tensor | None
    labels: Tensor
    task_ids: Tensor
    row_counts: Tensor
    counts: Tensor
    autocast: bool = False

    @property
    def num_tasks(self) -> int:
        """Number of tasks."""
        return len(self.counts)

    @property
    def device(self) -> torch.device:
        """Where everything lives."""
        return self.input_ids.device

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Trainable parameters, in model order."""
        return [p for p in self.model.parameters() if p.requires_grad]

    @property
    def tolerance(self) -> float:
        """Largest relative difference between the gradients of two variants: rounding, of bf16 under autocast."""
        return 5e-2 if self.autocast else 1e-5

    def losses(self) -> Tensor:  # [tasks]
        """Run the one forward that all variants share.

        Every second task unlearns (its loss is negated) what it shares with the task before it, so that tasks
        conflict and combining has work to do.
        """
        return self.losses_of(self.task_ids, self.counts)

    def losses_of(self, owners: Tensor, counts: Tensor) -> Tensor:  # [batch], [groups] -> [groups]
        """Compute the losses of other groups of rows than the tasks."""
        inputs = {"input_ids": self.input_ids, "attention_mask": self.attention_mask}
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            logits = self.model(**inputs, use_cache=False).logits[:, :-1]
        targets = self.labels[:, 1:]
        per_token = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="none")
        per_row = per_token.view_as(targets).sum(1)  # 0 where padded
        sums = torch.zeros(len(counts), device=self.device).index_add(0, owners, per_row)
        signs = 1 - 2 * (torch.arange(len(counts), device=self.device) % self.num_tasks % 2)
        return sums / counts * signs


def build_model(size: Size, device: torch.device, train: Train = "lora", rank: int | None = None) -> nn.Module:
    """Build a Llama with random weights, and what is trained of it."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=size.hidden,
        intermediate_size=size.intermediate,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.key_value_heads or size.heads,
        vocab_size=size.vocabulary,
        max_position_embeddings=size.length,
        # Tied weights are no layer's own, so that no engine but `per_task` could train them.
        tie_word_embeddings=size.tied and train == "lora",
    )
    with device:
        model = LlamaForCausalLM(config)
    if train == "full":
        return model.train()
    if size.autocast:
        model = model.to(torch.bfloat16)  # as the base of an adapter is loaded; adapters stay in float32
    lora = LoraConfig(
        r=rank or size.rank, lora_alpha=16, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    model = get_peft_model(model, lora)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.02)
    return model.to(device).train()


def shapes_of(size: Size, num_tasks: int, rows: Rows) -> list[tuple[int, int]]:
    """Say how many rows every task has, and how long they are."""
    if rows == "ragged":
        shares = list(islice(cycle(RAGGED), num_tasks))
        unit = max(1, size.rows // sum(share for share, _ in shares))
        return [(share * unit, max(2, int(size.length * part))) for share, part in shares]
    if num_tasks < 1 or size.rows % num_tasks:
        raise SystemExit(f"--tasks must divide the {size.rows} rows of a step, got {num_tasks}.")
    return [(size.rows // num_tasks, size.length)] * num_tasks


def build_workload(model: nn.Module, size: Size, num_tasks: int, rows: Rows = "equal", *, seed: int = 0) -> Workload:
    """Draw a batch of random tokens.

    The rows of every second task begin as those of the task before it.
    """
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    found: list[Tensor] = []  # [rows of the task, tokens]
    for task, (count, length) in enumerate(shapes_of(size, num_tasks, rows)):
        own = torch.randint(size.vocabulary, (count, length), generator=generator)
        if task % 2:
            before = found[-1]
            shared = min(length, before.shape[1]) // 2
            own[:, :shared] = before[torch.arange(count) % len(before), :shared]
        found.append(own)
    task_ids = torch.arange(num_tasks).repeat_interleave(torch.tensor([len(own) for own in found]))
    longest = max(own.shape[1] for own in found)
    tokens = torch.cat([F.pad(own, (0, longest - own.shape[1])) for own in found])
    labels = torch.cat([F.pad(own, (0, longest - own.shape[1]), value=IGNORE_INDEX) for own in found])
    row_counts = (labels[:, 1:] != IGNORE_INDEX).sum(1)
    counts = torch.zeros(num_tasks, dtype=torch.int64).index_add(0, task_ids, row_counts)
    mask = labels != IGNORE_INDEX
    return Workload(
        model,
        tokens.to(device),
        None if bool(mask.all()) else mask.long().to(device),
        *(tensor.to(device) for tensor in (labels, task_ids, row_counts, counts)),
        autocast=size.autocast,
    )
