"""One shared model with a head per task: one forward for the rows of all tasks, whatever their label spaces."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mtl_opt.batch import IGNORE_INDEX, TaskBatch, task_rows
from mtl_opt.models.heads.base import Head, HeadRows, Output
from mtl_opt.models.heads.files import save_heads
from mtl_opt.models.heads.lm import RoutedOutput
from mtl_opt.models.sharing.base import private_parameters


class MultiTaskModel(nn.Module):
    """Combine one encoder or decoder with a head per task.

    The backbone reads the rows of all tasks in one forward; each head sees the rows of its own task alone, so a row
    cannot change what another task's head learns. Heads are private parameters (`task_parameters`), everything else
    that is trained is shared.

    Args:
        backbone: A model of transformers or a peft model around one: an encoder (`AutoModel`), or a causal language
            model, whose output layer heads of type "lm" share.
        heads: The head of every task, in the order of the task ids.

    Attributes:
        tasks: Names of the tasks.
        heads: Their heads, in the same order; by place, since a task may be called anything.
    """

    def __init__(self, backbone: Any, heads: Mapping[str, Head]) -> None:
        super().__init__()
        self.backbone = backbone
        self.tasks = tuple(heads)
        self.heads = Heads(self.tasks, heads.values())
        if "sharing" in backbone.__dict__:  # a way of sharing in the backbone is that of the whole model
            self.__dict__["sharing"] = backbone.__dict__["sharing"]

    @property
    def config(self) -> Any:
        """Configuration of the backbone."""
        return self.backbone.config

    @property
    def base(self) -> Any:
        """The model of transformers, with whatever adapters stand in it."""
        peft = hasattr(self.backbone, "get_base_model")
        return self.backbone.get_base_model() if peft else self.backbone

    @property
    def num_outputs(self) -> int:
        """Number of the outputs over a vocabulary; 0 where no task answers in text."""
        text = any(getattr(head, "reads", "") == "text" for head in self.heads)
        return self.get_input_embeddings().num_embeddings if text else 0

    def get_input_embeddings(self) -> Any:
        """Return the embedding layer of the backbone."""
        return self.base.get_input_embeddings()

    def head_at(self, place: int) -> Any:
        """Look up the head that computes a loss.

        Args:
            place: Index of a task, plus the number of tasks in the second half.

        Returns:
            The head.
        """
        return self.heads[place % len(self.tasks)]

    def head_of(self, task: str) -> Any:
        """Look up the head of a task by name."""
        return self.heads[self.tasks.index(task)]

    def task_parameters(self) -> dict[str, list[nn.Parameter]]:
        """List what belongs to one task alone: its head, and private adapters of a way of sharing.

        Returns:
            Trainable parameters by task.
        """
        return private_parameters(self)

    def hidden(self, batch: TaskBatch) -> Tensor:  # -> [batch, seq, dim]
        """Read all rows of a batch in one forward of the backbone.

        Args:
            batch: Rows of any tasks.

        Returns:
            Last hidden states. `[batch, seq, dim]`

        Raises:
            ValueError: If the rows are packed: heads need whole rows.
        """
        if batch.position_ids is not None or batch.task_ids.dim() != 1:
            raise ValueError("Heads need one row per example, and the rows of this batch are packed.")
        base = self.base
        inner = base.base_model if base.get_output_embeddings() is not None else base
        return inner(input_ids=batch.input_ids, attention_mask=batch.attention_mask).last_hidden_state

    def outputs(self, batch: TaskBatch) -> list[Output]:
        """Compute the outputs of every head for its rows.

        Args:
            batch: Rows of any tasks.

        Returns:
            One entry per task with rows, in task order.
        """
        return [Output(self.tasks[owner], rows, self.heads[owner](part)) for owner, rows, part in self.parts(batch)]

    def forward(self, batch: TaskBatch, num_losses: int) -> tuple[Tensor, Tensor]:  # [losses], [losses]
        """Compute the mean loss of every task over what is labelled.

        Args:
            batch: Rows of any tasks; `task_ids` says which loss each row goes to: its task, plus the number of tasks
                in the second half where rows are dealt to halves.
            num_losses: Number of losses.

        Returns:
            Mean losses, 0 where nothing is labelled `[losses]`, and the labelled rows, words or tokens that they
            average `[losses]`.

        A `ValueError` says which row of which task has a class that its head does not have (on the CPU).
        """
        check_targets(batch, self.tasks, self.heads, num_losses)
        device = batch.input_ids.device
        sums = [torch.zeros((), device=device) for _ in range(num_losses)]
        counts = [torch.zeros((), device=device, dtype=torch.long) for _ in range(num_losses)]
        for owner, _, part in self.parts(batch, learning=True):
            sums[owner], counts[owner] = self.head_at(owner).loss(part)
        totals = torch.stack(counts)
        return torch.stack(sums) / totals.clamp(min=1), totals

    def parts(self, batch: TaskBatch, learning: bool = False) -> Iterator[tuple[int, Tensor, HeadRows]]:
        """Run the backbone once and split its hidden states by head.

        Args:
            batch: Rows of any tasks.
            learning: Whether the losses are wanted.

        Yields:
            Which loss the rows go to, which rows of the batch they are, and what their head sees.
        """
        hidden = self.hidden(batch)
        shared = self._shared_logits(hidden, batch) if learning else None
        for owner in batch.task_ids.unique().tolist():
            rows = (batch.task_ids == owner).nonzero().flatten()
            targets = None if batch.targets is None else batch.targets[rows]
            own = None if shared is None else shared[1][shared[0] == owner]
            mask, labels = batch.attention_mask[rows], batch.labels[rows]
            yield owner, rows, HeadRows(hidden[rows], mask, labels, targets, self.base.get_output_embeddings(), own)

    def _shared_logits(self, hidden: Tensor, batch: TaskBatch) -> tuple[Tensor, Tensor] | None:  # -> [learnt]
        """Call a trained output layer once for the learnt positions of all text tasks."""
        # One call, because engine two_pass computes the Gramian per call of a layer: the sum over two calls would
        # lack the inner products between them.
        output = self.base.get_output_embeddings()
        if output is None or not output.weight.requires_grad:
            return None  # each head asks by itself: no logits are copied
        text = torch.tensor([head.reads == "text" for head in self.heads], device=hidden.device)
        own = text[batch.task_ids % len(self.tasks)][:, None]
        learnt = (batch.labels[:, 1:] != IGNORE_INDEX) & own
        if not bool(learnt.any()):
            return None
        owners = batch.task_ids[:, None].expand_as(learnt)[learnt]
        with task_rows(owners % len(self.tasks)):
            return owners, output(hidden[:, :-1][learnt])

    def generate(self, **arguments: Any) -> Tensor:
        """Generate as the backbone does, each row with its own task's output adapter.

        Args:
            arguments: Those of `generate` of transformers; a `task_rows` context says whose rows these are.

        Returns:
            Token ids.
        """
        with self.own_outputs():
            return self.backbone.generate(**arguments)

    @contextmanager
    def own_outputs(self) -> Iterator[None]:
        """Replace the output layer by one that adds the private output adapter of each row.

        Yields:
            Nothing; a `task_rows` context says whose rows are read.
        """
        base = self.base
        shared = base.get_output_embeddings()
        base.set_output_embeddings(RoutedOutput(shared, self.heads))
        try:
            yield
        finally:
            base.set_output_embeddings(shared)

    def gradient_checkpointing_enable(self, arguments: dict[str, Any]) -> None:
        """Compute activations of the backbone again in the backward.

        Args:
            arguments: Those of `torch.utils.checkpoint`.
        """
        enable = getattr(self.base, "activation_checkpointing_enable", None)
        (enable or self.base.gradient_checkpointing_enable)(arguments)

    def enable_input_require_grads(self) -> None:
        """Make the embedding's output require a gradient, so that frozen first layers are checkpointed too."""
        self.base.enable_input_require_grads()

    def save_pretrained(self, folder: str | Path, state_dict: dict[str, Tensor] | None = None) -> None:
        """Write the adapter (or the whole backbone) in its own form, and the heads beside it.

        Args:
            folder: Where to.
            state_dict: Weights gathered from all processes; None: those of this model.
        """
        if state_dict is None:
            self.backbone.save_pretrained(folder)
        else:
            self.backbone.save_pretrained(folder, state_dict=_below(state_dict, "backbone."))
        gathered = (
            None if state_dict is None else {t: _below(state_dict, f"heads.{i}.") for i, t in enumerate(self.tasks)}
        )
        save_heads(self.heads.by_task(), Path(folder), gathered)


class Heads(nn.ModuleList):
    """Register the heads of all tasks, each private to its own.

    Args:
        tasks: Names of the tasks.
        heads: Their heads, in the same order.
    """

    def __init__(self, tasks: Sequence[str], heads: Iterable[Head]) -> None:
        super().__init__(heads)
        self.tasks = tuple(tasks)

    def task_parameters(self) -> dict[str, list[nn.Parameter]]:
        """List the parameters of every head."""
        own = ((task, list(head.parameters())) for task, head in zip(self.tasks, self, strict=True))
        return {task: parameters for task, parameters in own if parameters}

    def by_task(self) -> dict[str, Head]:
        """Return the head of every task by its name."""
        heads: Any = self  # a ModuleList is typed as one of any modules
        return dict(zip(self.tasks, heads, strict=True))


def check_targets(batch: TaskBatch, tasks: Sequence[str], heads: Any, num_losses: int) -> None:
    """Refuse a batch whose rows belong to no task, or whose classes a head does not have.

    Batches on an accelerator are not looked at: a look would wait for it in every step.
    """
    if batch.task_ids.device.type != "cpu":
        return
    wrong = ((batch.task_ids < 0) | (batch.task_ids >= num_losses)).nonzero().flatten().tolist()
    if wrong:
        found = int(batch.task_ids[wrong[0]])
        raise ValueError(f"Row {wrong[0]}: `task_ids` must be from 0 to {num_losses - 1}, got {found}.")
    for owner in batch.task_ids.unique().tolist():
        head, task = heads[owner % len(tasks)], tasks[owner % len(tasks)]
        rows = (batch.task_ids == owner).nonzero().flatten()
        by_row = head.reads == "row"
        values = batch.targets if by_row else batch.labels
        if not head.needs_labels or values is None:
            continue
        number, own = len(head.options["labels"]), values[rows].double().view(len(rows), -1)
        known = ~own.isnan() if by_row else own != IGNORE_INDEX
        bad = (known & ((own < 0) | (own >= number) | (own != own.round()))).nonzero().tolist()
        if bad:
            row, value = int(rows[bad[0][0]]), float(own[bad[0][0], bad[0][1]])
            raise ValueError(
                f"Row {row} of the batch, of task `{task}`: a class must be a whole number from 0 to {number - 1}, "
                f"got {value:g}."
            )


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the part of a state whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
