"""From draws to batches: the share of this process, split by tokens, collated or packed, perhaps ahead of time."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from mtl_opt.batch import TaskBatch
from mtl_opt.data import EncodedRow, Sampler, collate, collate_packed, rank_slice
from mtl_opt.training.config.run_config import TrainConfig
from mtl_opt.training.processes import rank, world_size
from mtl_opt.training.setup.data import Prepared

Draws = list[dict[str, list[int]]]
"""The draws of one step."""


class BatchLoader:
    """Yield the batches of one step after the other, and keep the state of the sampler after the last one.

    Threads collate batches ahead of time; the caller's thread draws in order, so that neither the rows nor a resume
    depend on the number of threads. A mixing that learns is asked only when a step begins.

    Args:
        sampler: Draws the rows.
        make: Collates the draws of a step.
        draws_per_step: Micro-batches of a step.
        threads: Threads that collate; 0: the caller's own does.
        ahead: Steps prepared ahead per thread.
    """

    def __init__(
        self, sampler: Sampler, make: Callable[[Draws], list[TaskBatch]], draws_per_step: int, threads: int, ahead: int
    ) -> None:
        self.sampler = sampler
        self.make = make
        self.draws_per_step = draws_per_step
        self.ahead = 0 if sampler.mixer.learns else threads * ahead
        self.pool = ThreadPoolExecutor(threads, "batches") if self.ahead else None
        self.waiting: deque[tuple[Future[list[TaskBatch]], dict[str, Any]]] = deque()
        self.state = sampler.state_dict()

    def next(self) -> list[TaskBatch]:
        """Return the batches of the next step."""
        if self.pool is None:
            batches = self.make(self._draw())
            self.state = self.sampler.state_dict()
            return batches
        while len(self.waiting) <= self.ahead:
            future = self.pool.submit(self.make, self._draw())
            self.waiting.append((future, self.sampler.state_dict()))
        future, self.state = self.waiting.popleft()
        return future.result()

    def _draw(self) -> Draws:
        """Draw the rows of one step."""
        return [self.sampler.draw() for _ in range(self.draws_per_step)]

    def observe(self, losses: Mapping[str, float], step: int) -> None:
        """Pass the losses of a step to a mixing that learns."""
        if self.sampler.mixer.learns:
            self.sampler.observe(losses, step)
            self.state = self.sampler.state_dict()

    def drawn(self) -> dict[str, int]:
        """Return the rows of each task in the steps handed out so far."""
        return dict(self.state["drawn"])

    def epochs(self) -> dict[str, float]:
        """Return how often each task has been seen in the steps handed out so far."""
        return {task: self.state["drawn"][task] / size if size else 0.0 for task, size in self.sampler.sizes.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the sampler after the last step handed out."""
        return self.state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with the very row that would have come next."""
        self.waiting.clear()
        self.sampler.load_state_dict(state)
        self.state = self.sampler.state_dict()

    def close(self) -> None:
        """Stop the threads."""
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)


def build_loader(config: TrainConfig, prepared: Prepared, sampler: Sampler) -> BatchLoader:
    """Build the loader of the batches of each step."""
    threads = config.dataloader_num_workers
    if None in prepared.sizes.values():
        threads = min(threads, 1)  # a stream is read in order
    accumulation, ahead = config.gradient_accumulation_steps, config.dataloader_prefetch_factor
    return BatchLoader(sampler, batch_maker(config, prepared), accumulation, threads, ahead)


def batch_maker(config: TrainConfig, prepared: Prepared) -> Callable[[Draws], list[TaskBatch]]:
    """Return the function that collates the draws of a step."""
    pad = prepared.tokenizer.pad_token_id

    def make(draws: Draws) -> list[TaskBatch]:
        batches = []
        for draw in draws:
            mine = rank_slice(draw, rank(), world_size())
            if not any(mine.values()):  # `exhaustion: once`: the rows end before the step does
                continue
            rows = [[prepared.train[task][i] for i in mine[task]] for task in prepared.tasks]
            for part in split_by_tokens(rows, config.tokens_per_batch):
                packed = config.packing
                batches.append(collate_packed(part, pad, widest=config.cutoff_len) if packed else collate(part, pad))
        return batches

    return make


def split_by_tokens(rows: Sequence[Sequence[EncodedRow]], limit: int | None) -> list[list[list[EncodedRow]]]:
    """Split the rows of a micro-batch so that no part exceeds a number of tokens, padding included."""
    # Gradients of the parts add up to that of the whole: memory and time change, what is learnt does not.
    flat = [(len(row.input_ids), task, i) for task, mine in enumerate(rows) for i, row in enumerate(mine)]
    if limit is None or max((length for length, _, _ in flat), default=0) * len(flat) <= limit:
        return [[list(mine) for mine in rows]]
    parts: list[list[tuple[int, int, int]]] = [[]]
    for length, task, i in sorted(flat):
        if length * (len(parts[-1]) + 1) > limit and parts[-1]:
            parts.append([])
        parts[-1].append((length, task, i))
    return [[[rows[t][i] for _, task, i in sorted(part) if task == t] for t in range(len(rows))] for part in parts]
