"""Default comparison: the tasks of the support desk, and a tiny Llama pretrained on its language; both are cached."""

import logging
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mtl_opt.examples.support_desk.rows import TASKS, pretraining_texts, write_files
from mtl_opt.examples.tiny_llama import build_tiny_llama

logger = logging.getLogger(__name__)

VERSION = 1
"""Raise it whenever generator, tokenizer or pretraining change: the cache is then rebuilt."""


def default_settings() -> dict[str, Any]:
    """Return the settings of the default comparison; data and model are generated on first use."""
    folder = _cached()
    tasks = {
        task: {"file": str(folder / f"{task}.train.jsonl"), "eval_file": str(folder / f"{task}.eval.jsonl")}
        for task in TASKS
    }
    return {
        "model_name_or_path": str(folder / "model"),
        "tasks": tasks,
        **SETTINGS,
    }


def with_weights(settings: dict[str, Any]) -> dict[str, Any]:
    """Add the task weights of `weighted` where it is compared and has none."""
    if "weighted" not in settings["combiners"] or "combiner_args" in settings:
        return settings
    return {**settings, "combiner_args": {"weighted": {"task_weights": WEIGHTS}}}


NUM_TEXTS = 20_000
"""Number of texts to pretrain on."""

WEIGHTS = {"product_qa": 1.0, "complaint_core": 1.0, "anger": 2.0}
"""Task weights of `weighted`: the task with the fewest rows counts twice."""

SETTINGS: dict[str, Any] = {
    "output_dir": "outputs/support_desk",
    "combiners": ["sum", "weighted", "uncertainty", "gradnorm", "pcgrad"],
    "seeds": [0, 1],
    "baselines": True,
    "lora_rank": 8,
    "learning_rate": 5e-3,
    "lr_scheduler_type": "linear",
    "warmup_steps": 10,
    "max_steps": 110,
    "rows_per_task": 8,
    "cutoff_len": 128,
    "logging_steps": 5,
    "save_steps": None,
    "gradient_window": 50,  # of 110 steps: agreement at first, and that what follows is noise
    "per_device_eval_batch_size": 100,
    "max_new_tokens": 8,
}


def _cached() -> Path:
    """Return the folder with data and model; build it atomically where it is missing."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mtl_opt"
    folder = base / f"support_desk-{VERSION}"
    if folder.is_dir():
        return folder
    base.mkdir(parents=True, exist_ok=True)
    logger.info("Preparing the support desk once: generating rows and pretraining a tiny Llama, about a minute.")
    partial = Path(tempfile.mkdtemp(prefix=f"{folder.name}.partial-", dir=base))
    try:
        write_files(partial)
        texts = pretraining_texts(NUM_TEXTS, seed=0)
        with tqdm(desc="pretraining", disable=None) as bar:

            def progress(step: int, steps: int, loss: float) -> None:
                bar.total = steps
                bar.set_postfix(loss=f"{loss:.2f}", refresh=False)
                bar.update(step - bar.n)

            build_tiny_llama(partial / "model", texts, seed=0, progress=progress)
        os.replace(partial, folder)
    except OSError:
        if not folder.is_dir():  # otherwise another process built it first
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder
