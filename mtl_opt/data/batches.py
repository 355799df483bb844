"""Padded batches: rows of all tasks for training, with the task of each, and prompts for generation."""

from collections.abc import Sequence
from math import nan

import torch
from torch import Tensor

from mtl_opt.batch import IGNORE_INDEX, TaskBatch
from mtl_opt.data.text.tokens import EncodedRow


def collate(rows: Sequence[Sequence[EncodedRow]], pad_token_id: int) -> TaskBatch:
    """Pad the rows of all tasks on the right to the longest, the rows of one task next to each other.

    Args:
        rows: The rows of each task; empty for a task that is absent.
        pad_token_id: Fills `input_ids`. It may be the id of a real token, since the mask is derived from lengths.

    Returns:
        The batch, sorted by task. `[batch, seq]`

    Raises:
        ValueError: If no task has a row.
    """
    flat = [row for task_rows in rows for row in task_rows]
    if not flat:
        raise ValueError(f"A batch needs at least one row, got none for {len(rows)} tasks.")
    task_ids = [task for task, task_rows in enumerate(rows) for _ in task_rows]
    width = max(len(row.input_ids) for row in flat)
    targets = None
    if any(row.target is not None for row in flat):
        targets = torch.tensor([nan if row.target is None else row.target for row in flat])
    return TaskBatch(
        input_ids=torch.tensor([pad_right(row.input_ids, width, pad_token_id) for row in flat]),
        attention_mask=torch.tensor([pad_right([1] * len(row.input_ids), width, 0) for row in flat]),
        labels=torch.tensor([pad_right(row.labels, width, IGNORE_INDEX) for row in flat]),
        task_ids=torch.tensor(task_ids),
        targets=targets,
    )


def collate_prompts(
    prompts: Sequence[Sequence[int]], pad_token_id: int
) -> tuple[Tensor, Tensor]:  # [batch, seq], [batch, seq]
    """Pad prompts on the left, so that all answers begin at the same position.

    Args:
        prompts: Token ids of each prompt.
        pad_token_id: Fills the left of `input_ids`.

    Returns:
        `input_ids` and `attention_mask`, both `[batch, seq]`.

    Raises:
        ValueError: If there is no prompt.
    """
    if not prompts:
        raise ValueError("A batch of prompts needs at least one prompt, got none.")
    width = max(map(len, prompts))
    ids = [[pad_token_id] * (width - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(ids), torch.tensor(mask)


def pad_right(values: Sequence[int], width: int, filler: int) -> list[int]:
    """Pad a row on the right."""
    return [*values, *([filler] * (width - len(values)))]
