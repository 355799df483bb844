"""Answers of a trained run or of an export, with the template of its training."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from mtl_opt.data import Encoder, Row, RowSpec
from mtl_opt.data.read.files import read_records, stop_at_first
from mtl_opt.data.read.row_formats import make_row
from mtl_opt.deploy.export_folders import EXPORT_JSON, lies_beside
from mtl_opt.deploy.trained_run import TrainedRun, open_trained
from mtl_opt.errors import InputError, UnknownNameError
from mtl_opt.generation import TextStream, generate
from mtl_opt.models import load_base, load_tokenizer, reads
from mtl_opt.training.config.run_config import train_config
from mtl_opt.training.config.yaml_file import override
from mtl_opt.training.setup.model_settings import autocast, autocast_dtype, base_dtype, quantization_settings

UNKNOWN = "\u2026"
"""Stands for the answer of a row that has none; the model never sees it."""


@dataclass
class Answering:
    """Answer prompts of the tasks of a run, or of what was exported from it.

    Attributes:
        trained: The run.
        folders: Folder of every exported task; None where the run itself answers.
        form: "merged" or "adapter" for an export.
    """

    trained: TrainedRun
    folders: dict[str, Path] | None = None
    form: str = ""

    def __post_init__(self) -> None:
        self._loaded: tuple[Path, Any] | None = None
        self._encoders: dict[str, Encoder] = {}

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer that was saved with the run; every export has it too."""
        folder = self.trained.folder if self.folders is None else next(iter(self.folders.values()))
        return load_tokenizer(str(folder), trust_remote_code=self.trained.config.trust_remote_code)

    def check_task(self, task: str | None) -> str:
        """Return the task that is meant, or refuse one that is unknown or writes no text."""
        known = self.trained.tasks if self.folders is None else tuple(self.folders)
        if task is None and len(known) > 1:
            raise InputError(f"Whose prompts are these? Give `--task`, one of {', '.join(known)}.")
        if task is not None and task not in known:
            where = self.trained.folder
            kind = f"task of `{where}`:" if self.folders is None else f"task of the export `{where}`:"
            raise UnknownNameError(kind, task, known)
        task = known[0] if task is None else task
        self._check_head(task)
        return task

    def _check_head(self, task: str) -> None:
        """Refuse a task whose head gives no text, or whose text needs what lies beside an exported model."""
        kind = (self.trained.config.heads or {}).get(task, {}).get("type")
        if kind is not None and reads(kind) != "text":
            raise InputError(
                f"Task `{task}` has a head of type {kind}, which writes no text; `mtl-opt eval` measures it."
            )
        if self.folders is not None and lies_beside(task, self.folders[task]):
            raise InputError(
                f"The head of task `{task}` lies beside its model in `{self.folders[task]}`, which would answer "
                "without it; generate from the run itself, or export the run again."
            )

    def answer(self, rows: Sequence[Row], tasks: Sequence[str], **options: Any) -> Iterator[tuple[int, str]]:
        """Yield place and answer of every row; rows that one model answers go through it together."""
        size = options.pop("batch_size", 16)
        for places in self._together(tasks):
            for begin in range(0, len(places), size):
                chunk = places[begin : begin + size]
                found = self._answer_batch([rows[i] for i in chunk], [tasks[i] for i in chunk], options)
                yield from zip(chunk, found, strict=True)

    def _together(self, tasks: Sequence[str]) -> list[list[int]]:
        """Group places by the model and the text that ends an answer."""
        groups: dict[Any, list[int]] = {}
        for place, task in enumerate(tasks):
            key = (None if self.folders is None else self.folders[task], self._encoder(task).frame)
            groups.setdefault(key, []).append(place)
        return list(groups.values())

    def _answer_batch(self, rows: Sequence[Row], tasks: Sequence[str], options: Mapping[str, Any]) -> list[str]:
        """Answer rows that go through one model at once."""
        model = self._open(tasks[0])
        encoders = [self._encoder(task) for task in tasks]
        frame = encoders[0].frame
        prompts = [encoder.prompt(row) for encoder, row in zip(encoders, rows, strict=True)]
        device = next(model.parameters()).device
        ids: Any = list(tasks) if hasattr(model, "tasks") else 0
        with autocast(device, autocast_dtype(self.trained.config)):
            return generate(
                model,
                self.tokenizer,
                prompts,
                ids,
                batch_size=len(rows),
                stop=frame.stop,
                ends=frame.ends,
                **options,
            )

    def stream(self, row: Row, task: str, write: Callable[[str], object], **options: Any) -> None:
        """Answer one row, writing its text piece by piece as it grows."""
        frame = self._encoder(task).frame
        stream = TextStream(self.tokenizer, write, frame.stop, frame.ends)
        for _ in self.answer([row], [task], streamer=stream, **options):
            pass

    def _encoder(self, task: str) -> Encoder:
        """Return the encoder of a task's prompts, built once."""
        if task not in self._encoders:
            self._encoders[task] = self.trained.encoder(task, self.tokenizer)
        return self._encoders[task]

    def _open(self, task: str) -> Any:
        """Load the model that answers a task, unless it is the one in memory."""
        folder = self.trained.folder if self.folders is None else self.folders[task]
        if self._loaded is None or self._loaded[0] != folder:
            device = torch.accelerator.current_accelerator() or torch.device("cpu")
            model = self.trained.model() if self.folders is None else self._exported(folder)
            self._loaded = (folder, model.to(device).eval())
        return self._loaded[1]

    def _exported(self, folder: Path) -> Any:
        """Load an exported model, or the base with an exported adapter."""
        config = self.trained.config
        trust = config.trust_remote_code
        if self.form == "merged":
            return load_base(str(folder), dtype="auto", trust_remote_code=trust)  # type: ignore[arg-type]
        base = load_base(
            config.model_name_or_path,
            dtype=base_dtype(config),
            trust_remote_code=trust,
            quantization=quantization_settings(config),
        )
        return PeftModel.from_pretrained(base, str(folder))


def open_answering(where: str | Path, overrides: Sequence[str] = ()) -> Answering:
    """Open a run, or an export of one, to answer prompts.

    Args:
        where: Folder of a run, a checkpoint or an export, or the YAML of a run.
        overrides: Settings of the run that win, as `key=value`, such as a model that has moved.

    Returns:
        What answers; models are loaded when they are needed.

    Raises:
        InputError: If no finished run or export is there, or its files cannot be read.
    """
    about = Path(where) / EXPORT_JSON
    if not about.exists():
        return Answering(open_trained(where, overrides))
    try:
        known = json.loads(about.read_text(encoding="utf-8"))
        folders = {task: Path(where) / name for task, name in known["tasks"].items()}
        settings, form = dict(known["config"]), str(known["form"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"`{about}` cannot be read ({error}).") from error
    config = train_config({**override(settings, overrides), "output_dir": str(where)})
    return Answering(TrainedRun(Path(where), config, tuple(folders)), folders, form)


def prompt_row(text: str) -> Row:
    """Build a row without an answer from a prompt.

    Args:
        text: The prompt.

    Returns:
        The row, for `Answering.answer` or `Answering.stream`.
    """
    return Row(text, "", UNKNOWN, None, "--prompt", 1)


def read_prompts(path: str) -> list[Row]:
    """Read rows that may lack an answer.

    Args:
        path: A data file in any of the row formats.

    Returns:
        Its rows, `UNKNOWN` in the place of an answer that is missing.

    Raises:
        InputError: If there is no such file, a row cannot be read, or there is none.
    """
    rows = [make_row(_with_answer(record), path, line, RowSpec()) for line, record in read_records(path, stop_at_first)]
    if not rows:
        raise InputError(f"Data file `{path}` has no rows.")
    return rows


def _with_answer(record: object) -> object:
    """Insert `UNKNOWN` in the place of an answer that is missing, whatever the format of the row."""
    if not isinstance(record, dict):
        return record
    for key, role, text, name in (
        ("messages", "role", "content", "assistant"),
        ("conversations", "from", "value", "gpt"),
    ):
        turns = record.get(key)
        if isinstance(turns, list):
            last = turns[-1] if turns and isinstance(turns[-1], dict) else {}
            said = last.get(role) in {name, "assistant", "function_call"}
            return record if said else {**record, key: [*turns, {role: name, text: UNKNOWN}]}
    for key, answer in (("instruction", "output"), ("choices", "answer")):
        if key in record:
            return {**record, answer: 0 if key == "choices" else UNKNOWN} if not record.get(answer) else record
    for key, answer in (("prompt", "completion"), ("text", "label")):
        if key in record and answer not in record:
            rest = {k: v for k, v in record.items() if k != key}
            return {**rest, "instruction": record[key], "output": UNKNOWN}
    return record
