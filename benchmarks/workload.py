"""The model and the batch that every variant steps on: a Llama with LoRA on all linear layers, random weights."""

from dataclasses import dataclass

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM


@dataclass(frozen=True)
class Size:
    """Hold the sizes of a model and of a step's batch.

    Attributes:
        hidden: Width of the model.
        intermediate: Width of its feed-forward layers.
        layers: Number of layers.
        heads: Number of attention heads.
        vocabulary: Number of tokens.
        rows: Rows of a step, divided equally among the tasks.
        length: Tokens of a row.
    """

    hidden: int
    intermediate: int
    layers: int
    heads: int
    vocabulary: int
    rows: int
    length: int


SIZES = {
    "large": Size(hidden=512, intermediate=1376, layers=4, heads=8, vocabulary=2048, rows=16, length=128),
    "small": Size(hidden=256, intermediate=688, layers=4, heads=8, vocabulary=2048, rows=16, length=32),
    "tiny": Size(hidden=32, intermediate=64, layers=2, heads=2, vocabulary=64, rows=8, length=8),
}
"""large: 2048 tokens a step; small: 512, about 60 ms on two cores, where overhead shows; tiny: for tests."""

LORA_RANK = 8


@dataclass(frozen=True)
class Workload:
    """Hold what a step works on.

    Attributes:
        model: The model; only its adapters are trainable.
        input_ids: Tokens; the rows of one task are contiguous. `[batch, seq]`
        task_ids: Task of every row. `[batch]`
        counts: Label tokens of every task. `[tasks]`
    """

    model: nn.Module
    input_ids: Tensor
    task_ids: Tensor
    counts: Tensor

    @property
    def num_tasks(self) -> int:
        """Number of tasks."""
        return len(self.counts)

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Trainable parameters, in model order."""
        return [p for p in self.model.parameters() if p.requires_grad]

    def losses(self) -> Tensor:  # [tasks]
        """Run the one forward that all variants share.

        Every second task unlearns (its loss is negated) what it shares with the task before it, so that tasks
        conflict and combining has work to do.

        Returns:
            Mean next-token loss of every task, in nats, negated for every second one. `[tasks]`
        """
        logits = self.model(input_ids=self.input_ids, use_cache=False).logits[:, :-1]
        targets = self.input_ids[:, 1:]
        per_token = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
        means = per_token.view(self.num_tasks, -1).mean(1)  # rows of one task are contiguous, equally many each
        return means * (1 - 2 * (self.task_ids[:: len(self.task_ids) // self.num_tasks] % 2))


def build_model(size: Size, device: torch.device) -> nn.Module:
    """Build a Llama with random weights and LoRA on all linear layers.

    Args:
        size: Its sizes.
        device: Where it lives.

    Returns:
        The model, adapters trainable and not zero (a fresh adapter's `B` is zero, and with it half the gradient).
    """
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=size.hidden,
        intermediate_size=size.intermediate,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.heads,
        vocab_size=size.vocabulary,
        max_position_embeddings=size.length,
    )
    lora = LoraConfig(r=LORA_RANK, lora_alpha=16, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(LlamaForCausalLM(config), lora)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.02)
    return model.to(device).train()


def build_workload(model: nn.Module, size: Size, num_tasks: int) -> Workload:
    """Draw a batch with equally many rows of every task and random tokens.

    Every second task shares the first half of its rows with the task before it.

    Args:
        model: The model.
        size: Sizes of the batch.
        num_tasks: Number of tasks.

    Returns:
        The workload, on the model's device.

    Raises:
        SystemExit: If the rows cannot be divided equally.
    """
    if num_tasks < 1 or size.rows % num_tasks:
        raise SystemExit(f"--tasks must divide the {size.rows} rows of a step, got {num_tasks}.")
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(0)
    task_ids = torch.arange(num_tasks).repeat_interleave(size.rows // num_tasks)
    tokens = torch.randint(size.vocabulary, (size.rows, size.length), generator=generator)
    of_task = tokens.view(num_tasks, -1, size.length)
    half = size.length // 2
    for task in range(1, num_tasks, 2):
        of_task[task, :, :half] = of_task[task - 1, :, :half]
    counts = torch.full((num_tasks,), size.rows // num_tasks * (size.length - 1))
    return Workload(model, tokens.to(device), task_ids.to(device), counts.to(device))
