"""The sampler of a run, which draws the rows of every step, and the number of steps."""

import logging
import math
from collections.abc import Mapping

from mtl_opt.data import Facts, PacedRows, RowOrder, RowPacing, Sampler, build_mixer, split_row_pacing
from mtl_opt.errors import InputError
from mtl_opt.training.config.keys import BatchKeys
from mtl_opt.training.config.run_config import TrainConfig
from mtl_opt.training.processes import world_size
from mtl_opt.training.setup.data import Prepared

logger = logging.getLogger(__name__)


def rows_per_task(config: BatchKeys, num_tasks: int) -> int:
    """Return the rows of each task per process and micro-batch."""
    if config.per_device_train_batch_size is None:
        return config.rows_per_task
    return max(1, config.per_device_train_batch_size // num_tasks)


def num_steps(config: TrainConfig, num_rows: int, num_tasks: int) -> int:
    """Compute the optimizer steps of a run from its steps or epochs."""
    if config.max_steps > 0:
        return config.max_steps
    per_step = rows_per_task(config, num_tasks) * num_tasks * config.gradient_accumulation_steps * world_size()
    return max(1, math.ceil(config.num_train_epochs * num_rows / per_step))


def facts_of(config: TrainConfig, prepared: Prepared, total_steps: int) -> Facts:
    """Collect what a mixing may depend on."""
    tasks = prepared.tasks
    sizes = prepared.sizes
    rows = rows_per_task(config, len(tasks)) * len(tasks) * config.gradient_accumulation_steps * world_size()
    known = {task: float(prepared.train[task].lengths.mean()) for task in tasks if sizes[task] is not None}
    lengths = known if len(known) == len(tasks) else {}
    return Facts(sizes, total_steps, rows, seed_of(config), lengths, ratios_of(config, prepared))


def ratios_of(config: TrainConfig, prepared: Prepared) -> dict[str, float]:
    """Collect the configured shares; with `only_tasks` those of the tasks left, scaled to sum to 1."""
    given = config.ratios
    if given is None:
        found = {task: prepared.settings[task].ratio for task in prepared.tasks}
        given = {task: ratio for task, ratio in found.items() if ratio is not None}
    if config.only_tasks is None or not given:
        return dict(given)
    unknown = [task for task in given if task not in prepared.settings]
    left = {task: given[task] for task in (*prepared.tasks, *unknown) if task in given}
    total = sum(left.values())
    return {task: ratio / total for task, ratio in left.items()} if total else left


def seed_of(config: TrainConfig) -> int:
    """Return the seed of the order of rows."""
    return config.seed if config.data_seed is None else config.data_seed


def build_sampler(config: TrainConfig, prepared: Prepared, quiet: bool = False) -> tuple[Sampler, int]:
    """Build the sampler, and count the steps of the run; log what becomes of the settings unless that was done."""
    sizes = prepared.sizes
    known = [size for size in sizes.values() if size is not None]
    if len(known) < len(sizes) and (config.group_by_length or config.stratify_by or config.exhaustion != "repeat"):
        raise InputError(
            "`group_by_length`, `stratify_by` and `exhaustion` need the number of rows; a stream has none."
        )
    total = num_steps(config, sum(known), len(sizes))
    if not quiet:
        _log_division(config, len(sizes))
        _log_ratios(config, prepared)
    sampler = new_sampler(config, prepared, total)
    if config.exhaustion == "repeat":
        return sampler, total
    whole = count_steps(new_sampler(config, prepared, total), config)
    whole = whole if config.max_steps < 0 else min(whole, config.max_steps)
    for order in sampler.orders.values():
        if isinstance(order, PacedRows):
            order.total_steps = whole
    return sampler, whole


def _log_division(config: BatchKeys, num_tasks: int) -> None:
    """Log the batch size that results where the tasks do not divide it."""
    given, rows = config.per_device_train_batch_size, rows_per_task(config, num_tasks)
    if given is not None and given != rows * num_tasks:
        logger.info(
            "per_device_train_batch_size %d over %d tasks: %d rows of each, %d in all.",
            given, num_tasks, rows, rows * num_tasks,
        )  # fmt: skip


def _log_ratios(config: TrainConfig, prepared: Prepared) -> None:
    """Log that the configured shares were scaled to sum to 1, or are not those of the mixing."""
    ratios, total = ratios_of(config, prepared), sum(ratios_of(config, prepared).values())
    if not ratios or len(prepared.tasks) < 2:
        return
    if config.mixing not in {"ratios", "homogeneous"}:
        logger.info(
            "`ratios` are for `mixing: ratios` or `homogeneous`; `mixing: %s` does not use them.", config.mixing
        )
    elif abs(total - 1) > 1e-6:
        shares = ", ".join(f"{task} {ratio / total:.1%}" for task, ratio in ratios.items())
        logger.info("`ratios` sum up to %g and are taken as %s.", total, shares)


def new_sampler(config: TrainConfig, prepared: Prepared, total_steps: int) -> Sampler:
    """Build a sampler for a run of so many steps."""
    sizes, seed = prepared.sizes, seed_of(config)
    rows = rows_per_task(config, len(sizes))
    if config.stratify_by and not any((labels >= 0).any() for labels in prepared.labels.values()):
        raise InputError("`stratify_by: label`: no row has a label (formatting classification or multiple_choice).")
    pacing, arguments = split_row_pacing(config.mixing_args)
    orders: dict[str, RowOrder | PacedRows] = {
        task: RowOrder(
            task, size, seed, rows * world_size(),
            prepared.labels[task] if config.stratify_by and (prepared.labels[task] >= 0).any() else None,
            prepared.train[task].lengths if config.group_by_length else None,
        )
        for task, size in sizes.items()
    }  # fmt: skip
    if pacing is not None:
        orders = paced_orders(pacing, config, prepared, total_steps)
    # One task alone, such as a single-task baseline, has all rows whatever the shares are.
    name, own = (config.mixing, arguments) if len(sizes) > 1 else ("balanced", {})
    mixer = build_mixer(name, facts_of(config, prepared, total_steps), own)
    return Sampler(
        sizes, rows, seed, mixer, processes=world_size(), draws_per_step=config.gradient_accumulation_steps,
        tasks_per_step=config.tasks_per_step, orders=orders,
        limits=row_limits(config, sizes) if config.exhaustion == "once" else None,
    )  # fmt: skip


def paced_orders(
    pacing: RowPacing, config: TrainConfig, prepared: Prepared, total_steps: int
) -> dict[str, RowOrder | PacedRows]:
    """Order the rows of every task by a curriculum; losses are measured once there is a model."""
    wanted: tuple[tuple[str, object], ...] = (("group_by_length", False), ("stratify_by", None), ("streaming", False))
    for key, value in wanted:
        if getattr(config, key) != value:
            given = str(getattr(config, key)).lower()
            raise InputError(f"`mixing_args.rows: {pacing.rows}` orders the rows itself and excludes `{key}: {given}`.")
    if config.exhaustion == "once":
        raise InputError(
            f"`mixing_args.rows: {pacing.rows}` does not go with `exhaustion: once`: open rows may come twice before "
            "the last one is open."
        )
    found: dict[str, RowOrder | PacedRows] = {}
    for task, rows in prepared.train.items():
        scores = rows.lengths if pacing.rows == "length" else None
        if pacing.column is not None:
            scores = [row.difficulty for row in prepared.train_rows[task]]
        found[task] = PacedRows(task, len(rows), seed_of(config), pacing, total_steps, scores)
    return found


def row_limits(config: TrainConfig, sizes: Mapping[str, int | None]) -> dict[str, int]:
    """Compute the rows of each task in `num_train_epochs` passes."""
    return {task: math.ceil(config.num_train_epochs * (size or 0)) for task, size in sizes.items()}


def count_steps(sampler: Sampler, config: TrainConfig) -> int:
    """Count the steps until the rows are used up in the sense of `exhaustion`, by running the sampler."""
    limits = row_limits(config, sampler.sizes)
    enough = all if config.exhaustion in {"stop_all", "once"} else any
    never = [task for task, share in zip(sampler.sizes, sampler.mixer.shares(0), strict=True) if not share]
    wanted = {task: limit for task, limit in limits.items() if task not in never or config.exhaustion == "once"}
    steps = 0
    while not enough(sampler.drawn[task] >= limit for task, limit in wanted.items()):
        for _ in range(config.gradient_accumulation_steps):
            sampler.skip()
        steps += 1
    return max(1, steps)
