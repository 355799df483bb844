"""Losses measured again after the step: of the same batch for FAMO, of held-out rows for CoBa."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from mtl_opt.batch import TaskBatch, task_rows
from mtl_opt.data import collate
from mtl_opt.errors import InputError
from mtl_opt.models import task_losses
from mtl_opt.training.run.state import Run

logger = logging.getLogger(__name__)


class Observer:
    """Measure the losses that a combiner observes, and pass them on; does nothing for one that observes nothing.

    Args:
        run: The run.

    Raises:
        InputError: If the combiner observes held-out rows and a task has none.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        monitor = run.parts.monitor  # knows what `monitor_only` makes a shadow
        self.kind = run.parts.combiner.observes if monitor is None else monitor.observes
        self.random: list[Tensor] = []
        combiner = run.settings["combiner"]
        if self.kind == "validation":
            empty = [task for task in run.prepared.tasks if not run.prepared.eval_encoded[task]]
            if empty:
                raise InputError(f"`combiner: {combiner}` observes held-out rows; task `{empty[0]}` has none.")
        if self.kind != "nothing":
            often = "after every step" if self.kind == "batch" else f"every {run.observe_every} steps"
            logger.info("%s observes losses %s: one more forward each time.", combiner, often)

    def before_step(self) -> None:
        """Save the random state, so that the same dropout masks can be drawn again."""
        if self.kind == "batch":
            self.random = [torch.get_rng_state()]
            self.random += torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []

    def after_step(self, batches: Sequence[TaskBatch], step: int) -> None:
        """Measure the losses of the tasks present without gradients, and pass them to the combiners that observe."""
        if self.kind == "nothing" or (self.kind == "validation" and step % self.run.observe_every):
            return
        with torch.no_grad(), self._conditions():
            losses, counts = self._measure(batches if self.kind == "batch" else [self._held_out(step)])
        present = [task for task, count in enumerate(counts.tolist()) if count > 0]
        if self.run.parts.combiner.observes == self.kind:
            self.run.parts.combiner.observe(losses[present], tasks=present)
        if self.run.parts.monitor is not None:
            self.run.parts.monitor.observe(losses[present], present)

    def _measure(self, batches: Sequence[TaskBatch]) -> tuple[Tensor, Tensor]:  # [tasks], [tasks]
        """Average the losses over micro-batches, weighted by label counts as in the step."""
        num_tasks = len(self.run.prepared.tasks)
        sums = totals = torch.zeros(num_tasks, dtype=torch.float64, device=self.run.device)
        for batch in batches:
            with (
                task_rows(batch.task_ids),
                self.run.parts.autocast(self.run.device),
            ):
                losses, counts = task_losses(self.run.parts.model, batch, num_tasks)
            sums, totals = sums + losses.double() * counts, totals + counts
        if self.kind == "batch":  # held-out rows are the same in every process
            sums, totals = self.run.parts.grads.processes.sum(torch.stack([sums, totals])).unbind()
        return sums / totals.clamp(min=1), totals

    @contextmanager
    def _conditions(self) -> Iterator[None]:
        """Reproduce the step's dropout for its own batch, switch dropout off for held-out rows; restore afterwards."""
        model = self.run.parts.model
        if self.kind == "validation":
            model.eval()
            yield
            model.train()
            return
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.set_rng_state(self.random[0])
            if self.random[1:]:
                torch.cuda.set_rng_state_all(self.random[1:])
            yield

    def _held_out(self, step: int) -> TaskBatch:
        """Collect the next held-out rows of every task in turn, as a function of the step alone."""
        prepared = self.run.prepared
        size = self.run.loader.sampler.rows_per_task
        begin = (step // self.run.observe_every - 1) * size
        rows = [
            [(held := prepared.eval_encoded[t])[(begin + i) % len(held)] for i in range(size)] for t in prepared.tasks
        ]
        return collate(rows, prepared.tokenizer.pad_token_id).to(self.run.device)
