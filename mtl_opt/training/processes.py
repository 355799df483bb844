"""Processes launched by `torchrun` or `accelerate launch`: rank, barriers, collective values."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs

from mtl_opt.errors import InputError


def world_size() -> int:
    """Return the number of processes the launcher has started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Return the rank of this process."""
    return int(os.environ.get("RANK", "0"))


def is_main() -> bool:
    """Return whether this process writes files, logs and progress bars."""
    return rank() == 0


def check_one_process(verb: str) -> None:
    """Refuse several processes where `mtl-opt VERB` trains several runs."""
    if world_size() > 1:
        raise InputError(f"`mtl-opt {verb}` runs in one process, got {world_size()}; `mtl-opt train` takes several.")


def bar_disabled() -> bool | None:
    """Return the `disable` argument of tqdm: only the main process shows a bar, and only on a terminal."""
    return None if is_main() else True


@contextmanager
def joined_processes(timeout: int) -> Iterator[torch.device]:
    """Set up communication between the processes for the duration of a run, and yield the device."""
    mine = not (dist.is_available() and dist.is_initialized())
    limits = InitProcessGroupKwargs(timeout=timedelta(seconds=timeout))
    # Without `cpu=True` Accelerate sets up no communication for processes without an accelerator.
    accelerator = Accelerator(cpu=not torch.accelerator.is_available(), kwargs_handlers=[limits])
    try:
        yield torch.device("cpu") if accelerator.device.type == "cpu" else accelerator.device
        wait_for_all()  # one that leaves early tears down connections the others still use
    finally:
        if mine and dist.is_available() and dist.is_initialized():
            dist.destroy_process_group()


def wait_for_all() -> None:
    """Block until every process has arrived."""
    if world_size() > 1:
        dist.barrier()


def any_process(flag: bool, device: torch.device) -> bool:
    """Return whether the flag is set in any process."""
    if world_size() == 1:
        return flag
    wish = torch.tensor(float(flag), device=device)
    dist.all_reduce(wish, op=dist.ReduceOp.MAX)
    return bool(wish)


def gather(value: Any) -> list[Any]:
    """Collect a value from every process, by rank."""
    if world_size() == 1:
        return [value]
    found: list[Any] = [None] * world_size()
    dist.all_gather_object(found, value)
    return found
