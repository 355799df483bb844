"""The blocks of a model in which tasks conflict: measured while a run trains, kept in a file, scored afterwards.

The score is that of Recon (Shi, Ren, Zhang, Wu, ICLR 2023, https://arxiv.org/abs/2302.11289, section 4.2): the share of
measurements in which two tasks' gradients in a block have a cosine below a threshold. A gradient of one batch is mostly
noise and its cosines crowd around zero, so a measurement is the sum of many steps wherever there are enough of them:

    <S_i, S_j> / (n_i n_j) and (|S_i|^2 - q_i) / (n_i (n_i - 1)),   S_t the sum of n_t gradients, q_t of their squares,

are unbiased for the inner products of the expected gradients (as in `gradients.window`). The cosines of single steps,
which Recon takes, are kept beside them.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mtl_opt.batch import TaskBatch
from mtl_opt.errors import InputError
from mtl_opt.gradients.rows.columns import layer_of
from mtl_opt.linalg import cosines
from mtl_opt.results import read_json_lines, write_text
from mtl_opt.training.config.run_config import TrainConfig, train_config
from mtl_opt.training.run.loop import train
from mtl_opt.training.run.state import Run
from mtl_opt.training.run.step import Parts
from mtl_opt.training.setup.data import Prepared

logger = logging.getLogger(__name__)

LAYER_GRAMIANS_JSONL = "layer_gramians.jsonl"
WRAPPERS = ("backbone.", "base_model.model.")
"""Prefixes that models with heads and, inside them, peft put before the names of a base's layers."""

LEAST_WINDOW = 20
"""Steps from which on a measured run corrects noise over windows."""


class LayerWatch:
    """Write the Gramian of every block in every step, and of the window's sums whenever a block of steps is full.

    All state is in the file and in the run's own window: a run that is killed and resumed measures the same.

    Args:
        run: The run, before its first step or restored.
        steps: Steps that are measured, from the first.
        least_blocks: Smallest number of numbered blocks with shared parameters.

    Raises:
        InputError: If there are fewer blocks, nothing is shared, or earlier steps were not measured.
    """

    def __init__(self, run: Run, steps: int, least_blocks: int = 1) -> None:
        self.path = Path(run.output.output_dir) / LAYER_GRAMIANS_JSONL
        self.steps = steps
        numbers: dict[str, int] = {}
        for name, parameter in run.parts.grads.buffer.parameters.items():
            block = plain_name(layer_of(name))
            numbers[block] = numbers.get(block, 0) + parameter.numel()
        blocks = [name for name in numbers if is_block(name)]
        if not numbers:
            raise InputError("Nothing is shared, so there is no conflict to measure.")
        if len(blocks) < least_blocks:
            raise InputError(f"`k` must be at most {len(blocks)}, the blocks that have shared parameters.")
        kept = [line for line in read_lines(self.path) if line["step"] <= run.step] if run.step else []
        head = {"step": 0, "tasks": list(run.prepared.tasks), "parameters": numbers}
        if run.step and not kept:
            raise InputError(f"The first {run.step} steps in `{self.path.parent}` were not measured; start anew.")
        write_text(self.path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in kept or [head]))

    def __call__(self, parts: Parts, batches: Sequence[TaskBatch], step: int) -> None:  # noqa: ARG002 - as `Watch`
        """Append the Gramians of a step."""
        if step > self.steps:
            return
        grads = parts.grads
        line: dict[str, Any] = {"step": step, "present": grads.present}
        line["blocks"] = {plain_name(n): _packed(g) for n, g in grads.gramian(by="layer").items()}
        window = grads.window
        if window is not None and window.steps + 1 == window.steps_per_block:  # this step fills the block
            rows = grads.jacobian
            line["sums"] = {}
            for name, columns in grads.buffer.columns.layers.items():
                sums = window.sums[:, columns].double() + rows[:, columns].double()
                line["sums"][plain_name(name)] = _packed(sums @ sums.T)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


@dataclass(frozen=True)
class MeasuredConflict:
    """The Gramians measured in every block.

    Attributes:
        tasks: Names of the tasks.
        parameters: Shared numbers of every block.
        steps: Gramians of single steps, by block. `[steps, tasks, tasks]`
        windows: Noise-corrected Gramians of sums of steps, by block; the mean squared norm of single steps stands on
            the diagonal where no signal rises above the noise. `[windows, tasks, tasks]`
    """

    tasks: list[str]
    parameters: dict[str, int]
    steps: dict[str, Tensor]
    windows: dict[str, Tensor]

    @property
    def corrected(self) -> bool:
        """Whether there are enough windows to score by them instead of by single steps."""
        return any(len(windows) >= 2 for windows in self.windows.values())


@dataclass(frozen=True)
class BlockConflict:
    """The conflict in one block.

    Attributes:
        block: Its name.
        rate: Share of measurements and pairs below the threshold; of windows where there are enough, else of steps.
        cosine: Mean cosine of the same measurements.
        step_rate: The share over single steps, as in the paper.
        step_cosine: Mean cosine of single steps.
        parameters: Shared numbers in it.
    """

    block: str
    rate: float
    cosine: float
    step_rate: float
    step_cosine: float
    parameters: int


def refuse_early_stop(verb: str, config: TrainConfig) -> None:
    """Refuse to measure conflicts in a run that may stop before all its steps."""
    if config.early_stopping_patience is not None:
        raise InputError(
            f"`mtl-opt {verb}` measures a run of all its steps; leave `early_stopping_patience: "
            f"{config.early_stopping_patience}` out."
        )


def train_measured(
    config: TrainConfig, data: Prepared, folder: Path, steps: int, least_blocks: int = 1
) -> dict[str, Any]:
    """Train with everything as configured, and measure every block in the first `steps` steps."""
    window = config.gradient_window
    if not window and config.denoised is None and config.gradient_engine != "two_pass" and steps >= LEAST_WINDOW:
        window = steps // 10 * 10
        logger.info("Noise is corrected over 10 windows of %d steps: one more buffer of rows.", window // 10)
    settings = {**asdict(config), "output_dir": str(folder), "resume_from_checkpoint": True, "gradient_window": window}
    return train(train_config(settings), data, partial(LayerWatch, steps=steps, least_blocks=least_blocks))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read what was measured; a last line torn by a kill is dropped."""
    return read_json_lines(path, "step", "measurement")[0] if path.exists() else []


def read_measurements(folder: Path) -> MeasuredConflict:
    """Read the measurements of a run and correct those of windows for noise."""
    lines = read_lines(folder / LAYER_GRAMIANS_JSONL)
    if len(lines) < 2:
        raise InputError(f"`{folder}` holds no measured step ({LAYER_GRAMIANS_JSONL}); choose another `output_dir`.")
    head, *lines = lines
    size, names = len(head["tasks"]), list(head["parameters"])
    steps = {n: torch.stack([_unpacked(line["blocks"][n], size) for line in lines]) for n in names}
    ends = [place + 1 for place, line in enumerate(lines) if "sums" in line]
    windows: dict[str, Tensor] = {name: torch.empty(0, size, size, dtype=torch.float64) for name in names}
    for begin, end in zip([0, *ends], ends, strict=False):
        seen = torch.zeros(size, dtype=torch.float64)
        for line in lines[begin:end]:
            seen[line["present"]] += 1
        for name in names:
            product = _unpacked(lines[end - 1]["sums"][name], size)
            squares = steps[name][begin:end].diagonal(dim1=1, dim2=2).sum(0)
            found = corrected_gramian(product, squares, seen)
            windows[name] = torch.cat([windows[name], found[None]])
    return MeasuredConflict(head["tasks"], head["parameters"], steps, windows)


def corrected_gramian(
    product: Tensor,  # [tasks, tasks]
    squares: Tensor,  # [tasks]
    seen: Tensor,  # [tasks]
) -> Tensor:  # [tasks, tasks]
    """Estimate the Gramian of the expected gradients, without the bias that noise gives its diagonal."""
    gramian = product / (seen[:, None] * seen[None, :]).clamp(min=1)
    signal = (product.diagonal() - squares) / (seen * (seen - 1)).clamp(min=1)
    power = squares / seen.clamp(min=1)
    # Where the unbiased estimate is not positive, noise hides the signal; the power of single steps bounds it.
    gramian.diagonal().copy_(torch.where((signal > 0) & (seen > 1), signal, power))
    return gramian


def conflicts(measured: MeasuredConflict, threshold: float = 0.0) -> list[BlockConflict]:
    """Score every block, the most conflicting first."""
    found = []
    for name, number in measured.parameters.items():
        own = _score(measured.steps[name], threshold)
        best = _score(measured.windows[name], threshold) if measured.corrected else own
        found.append(BlockConflict(name, *best, *own, number))
    return sorted(found, key=lambda c: (-_or(c.rate, -1.0), _or(c.cosine, 1.0)))


def pair_cosines(gramians: Tensor) -> Tensor:  # [measurements, tasks, tasks] -> [measurements, pairs]
    """Compute the cosine of every pair; NaN where a task is absent."""
    size = gramians.shape[-1]
    first, second = torch.triu_indices(size, size, offset=1)
    if not len(gramians):
        return gramians.new_empty(0, len(first))
    return torch.stack([cosines(one)[first, second] for one in gramians])


def _score(gramians: Tensor, threshold: float) -> tuple[float, float]:
    """Return the share of cosines below the threshold, and their mean."""
    values = pair_cosines(gramians).flatten()
    values = values[values.isfinite()]
    return float((values < threshold).double().mean()), float(values.mean())


def _or(value: float, otherwise: float) -> float:
    """Replace a NaN."""
    return otherwise if value != value else value


def plain_name(name: str) -> str:
    """Strip the prefixes of wrappers from the name of a layer."""
    for wrapper in WRAPPERS:
        name = name.removeprefix(wrapper)
    return name


def is_block(name: str) -> bool:
    """Return whether a layer is a numbered block."""
    return name.rsplit(".", 1)[-1].isdigit()


def _packed(gramian: Tensor) -> list[float]:
    """Flatten the upper triangle, rounded to seven digits."""
    rows, columns = torch.triu_indices(len(gramian), len(gramian))
    return [float(f"{value:.7g}") for value in gramian[rows, columns].tolist()]


def _unpacked(values: Sequence[float], size: int) -> Tensor:  # -> [tasks, tasks]
    """Restore the symmetric matrix."""
    rows, columns = torch.triu_indices(size, size)
    found = torch.zeros(size, size, dtype=torch.float64)
    found[rows, columns] = torch.tensor(values, dtype=torch.float64)
    return found + found.triu(1).T
