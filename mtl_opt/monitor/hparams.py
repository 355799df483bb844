"""One row of TensorBoard's HParams table: the settings of a run and its results."""

from collections.abc import Mapping
from math import isfinite
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams as hparams_summaries

from mtl_opt.monitor.tensorboard import tag_text

Value = bool | int | float | str


def write_hparams(
    log_dir: str | Path, hparams: Mapping[str, Value | None], metrics: Mapping[str, float | None]
) -> None:
    """Write a run as a row of the HParams table, which TensorBoard shows for the folder above several runs.

    Call it once for every finished run of a comparison, with the same keys each time: TensorBoard takes the columns
    from the first run it finds.

    Args:
        log_dir: Folder of the run's event files, such as `output_dir/RUN/runs`; created where missing.
        hparams: What was set: texts, numbers, true or false (shown as texts), by name; Chinese is fine. None is empty.
        metrics: What came of it, by name, such as `eval_qa_loss`; they also appear as scalars under `hparams/`. What is
            None or not finite stays empty.

    Raises:
        ValueError: If there is no metric, or a setting is no text, number or truth value.
    """
    if not metrics:
        raise ValueError("`metrics` must hold at least one metric, got none.")
    for name, value in hparams.items():
        if value is not None and not isinstance(value, bool | int | float | str):
            raise ValueError(f"`hparams[{name!r}]` must be a text, a number or true or false, got {value!r}.")
    known = {tag_text(name): _shown(value) for name, value in hparams.items()}
    tags = {f"hparams/{tag_text(name)}": value for name, value in metrics.items()}
    with SummaryWriter(str(log_dir), filename_suffix=".hparams") as writer:
        file = writer.file_writer
        assert file is not None
        for summary in hparams_summaries(known, dict.fromkeys(tags, 0.0)):
            file.add_summary(summary)
        for tag, number in tags.items():
            if number is not None and isfinite(number):
                writer.add_scalar(tag, number, 0)


def _shown(value: Value | None) -> Value:
    """Convert a setting so that the table distinguishes true from the number 1."""
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else value
