"""Scalars, heatmaps, histograms, panels and texts for TensorBoard."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import isnan, nan
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from mtl_opt.monitor.conflict_line import diagnosis_scalars
from mtl_opt.monitor.heatmap import cosine_heatmap, layer_heatmap, task_number
from mtl_opt.monitor.log_numbers import distinct, scalar_keys
from mtl_opt.monitor.noise_correction import NOISE

# The tags of a panel are regular expressions. One pattern per panel needs no escaping of task names, and one request
# instead of one per pair of tasks.
PANELS = {
    "gradient conflict": {
        "gradient cosines": ["Multiline", [r"^train/grad_cos_.+$"]],
        "cosines without sampling noise": ["Multiline", [r"^train/corrected_cos_.+$"]],
        "conflict rate": ["Multiline", [r"^train/conflict_rate$"]],
        "signal-to-noise": ["Multiline", [r"^train/snr_.+$"]],
        "gradient norms": ["Multiline", [r"^train/grad_norm_.+$"]],
        "condition number of the Jacobian": ["Multiline", [r"^train/condition_number$"]],
        "shares of the update": ["Multiline", [r"^train/share_.+$"]],
    },
    "shadow combiners": {
        "angle to the update taken (degrees)": ["Multiline", [r"^shadow/angle_.+$"]],
    },
    "tasks": {
        "training losses": ["Multiline", [r"^train/loss_.+$"]],
        "weights": ["Multiline", [r"^train/weight_.+$"]],
        "pull": ["Multiline", [r"^train/pull_.+$"]],
        "evaluation losses": ["Multiline", [r"^eval/.+_loss$"]],
        "evaluation exact match": ["Multiline", [r"^eval/.+_exact_match$"]],
    },
}

MAX_PAIRS = 45
"""Most columns of the picture of layers × pairs: all pairs of ten tasks."""


def tag_text(name: str) -> str:
    """Replace what a tag cannot hold: line breaks, control characters, broken Unicode."""
    return "".join(char if char.isprintable() and char != "/" else "_" for char in name)


class TensorBoardWriter:
    """Write what happened to event files that TensorBoard shows; every call is on disk when it returns.

    Args:
        log_dir: Folder for the event files, created where missing.
        tasks: Names of the tasks.
        purge_step: When resuming after step k, `k + 1`: TensorBoard drops what an earlier run wrote from there on.
    """

    def __init__(self, log_dir: str | Path, tasks: Sequence[str], purge_step: int | None = None) -> None:
        self.tasks = list(tasks)
        self.names = distinct(tag_text(task) for task in tasks)
        self.tags = dict(zip(scalar_keys(self.tasks), scalar_keys(self.names), strict=True))
        self.writer = SummaryWriter(str(log_dir), purge_step=purge_step)
        self.writer.add_custom_scalars(PANELS)
        rows = [f"| {task_number(i)} | {name.replace('|', chr(92) + '|')} |" for i, name in enumerate(self.names)]
        self.writer.add_text("tasks", "\n".join(["| number | task |", "|---|---|", *rows]))
        self.writer.flush()

    def write(self, step: int, scalars: Mapping[str, float], cosines: Tensor | None) -> None:
        """Write one log line under `train/`.

        Args:
            step: Number of the optimizer step.
            scalars: Flat keys as `scalars` returns them; NaN is left out.
            cosines: Cosines of the task gradients for the heatmap; None leaves it out. `[tasks, tasks]`
        """
        self.write_scalars(step, {f"train/{self.tags.get(key) or tag_text(key)}": v for key, v in scalars.items()})
        if cosines is not None:
            self.writer.add_image("train/grad_cosines", cosine_heatmap(cosines, self.tasks), step)
        # Kept back by the default two minutes, the lines before a crash would be missing after resuming.
        self.writer.flush()

    def write_diagnosis(self, line: Mapping[str, Any], cosines: Tensor, draw: bool) -> None:  # [values]
        """Write what `diagnose` found: scalars under `train/` and `shadow/`, histograms and pictures.

        Args:
            line: The diagnosis.
            cosines: Cosines of all pairs in all steps since the last line, for the histogram. `[values]`
            draw: Whether pictures are drawn: tasks × tasks without sampling noise, and layers × pairs.
        """
        step, shadows, found = line["step"], line["shadows"] or {}, line["corrected"]
        self.write_scalars(step, {f"train/{k}": v for k, v in diagnosis_scalars(line, self.names).items()})
        angles = {f"shadow/angle_{name}": shadow["angle"] for name, shadow in shadows.items()}
        self.write_scalars(step, {tag: angle for tag, angle in angles.items() if angle is not None})
        if cosines.numel():
            self.writer.add_histogram("train/grad_cosines_of_steps", cosines, step)
        if found is not None and len(self.tasks) > 1:
            values = _defined(found["cosines"])
            rows, columns = torch.triu_indices(len(values), len(values), offset=1)
            defined = values[rows, columns][values[rows, columns].isfinite()]
            if defined.numel():
                self.writer.add_histogram("train/corrected_cosines_of_pairs", defined, step)  # a tag is of one kind
            if draw:
                noise = torch.tensor([[verdict == NOISE for verdict in row] for row in found["verdict"]])
                self.writer.add_image("train/corrected_cosines", cosine_heatmap(values, self.tasks, noise), step)
        if draw and line["layers"] and len(self.tasks) > 1:
            self.writer.add_image("train/layer_cosines", self.layer_picture(line["layers"]), step)
        self.writer.flush()

    def layer_picture(self, layers: Mapping[str, Any]) -> Tensor:  # uint8 [3, height, width]
        """Draw layers × pairs; of very many pairs those that conflict most.

        Args:
            layers: Cosines of each layer. `{layer: [tasks, tasks]}`

        Returns:
            The picture. `[3, height, width]`
        """
        pairs = list(combinations(range(len(self.tasks)), 2))
        values = torch.stack([_defined(matrix) for matrix in layers.values()])  # [layers, tasks, tasks]
        values = torch.stack([values[:, i, j] for i, j in pairs], 1)  # [layers, pairs]
        if len(pairs) > MAX_PAIRS:
            order = values.nanmean(0).nan_to_num(1.0).argsort()[:MAX_PAIRS].sort().values.tolist()
            pairs, values = [pairs[index] for index in order], values[:, order]
        return layer_heatmap(values, list(layers), pairs)

    def write_evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write the metrics of an evaluation under `eval/`.

        Args:
            step: Number of the optimizer step.
            metrics: Values under keys such as `eval_qa_loss`, which becomes `eval/qa_loss`; NaN is left out.
        """
        self.write_scalars(step, {f"eval/{self.evaluation_tag(key)}": value for key, value in metrics.items()})
        self.writer.flush()

    def write_notes(self, step: int, notes: Mapping[str, int]) -> None:
        """Write what combiners noted as a text under `train/notes`; nothing where there is no note.

        Args:
            step: Number of the optimizer step.
            notes: Sentences, and in how many steps each came up since the last line.
        """
        if notes:
            lines = (f"{count} step{'s' if count > 1 else ''}: {sentence}" for sentence, count in notes.items())
            self.write_text("train/notes", "\n".join(lines), step)

    def write_text(self, tag: str, text: str, step: int | None = None) -> None:
        """Write a text that is shown as it is, such as the configuration.

        Args:
            tag: Name of the text.
            text: The text, shown with its line breaks.
            step: Number of the optimizer step it belongs to.
        """
        literal = "\n".join(f"    {line}" for line in text.splitlines())  # Markdown's literal block
        self.writer.add_text(tag, literal, step)
        self.writer.flush()

    def close(self) -> None:
        """Close the event file."""
        self.writer.close()

    def write_scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write values under full tags.

        Args:
            step: Number of the optimizer step.
            values: Tags and values; NaN is left out.
        """
        for tag, value in values.items():
            if not isnan(value):
                self.writer.add_scalar(tag, value, step)

    def evaluation_tag(self, key: str) -> str:
        """Turn the key of a metric into its tag.

        Args:
            key: A key such as `eval_qa_loss`.

        Returns:
            The tag without `eval/`, such as `qa_loss`.
        """
        rest = key.removeprefix("eval_")
        # The longest name first: with tasks `qa` and `qa_loss`, `qa_loss_loss` belongs to the second.
        for task, name in sorted(zip(self.tasks, self.names, strict=True), key=lambda pair: -len(pair[0])):
            if rest.startswith(f"{task}_"):
                return name + tag_text(rest[len(task) :])
        return tag_text(rest)


def _defined(matrix: Any) -> Tensor:  # -> [tasks, tasks]
    """Convert a line's numbers to a tensor, NaN where they are undefined."""
    return torch.tensor([[nan if value is None else value for value in row] for row in matrix], dtype=torch.float64)
