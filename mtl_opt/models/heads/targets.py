"""Whether the targets of a batch fit the heads: one sentence with task and row, in place of an index out of range."""

from collections.abc import Sequence
from typing import Any

from mtl_opt.batch import IGNORE_INDEX, TaskBatch


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
