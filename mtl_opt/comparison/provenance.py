"""Provenance of results: versions, commit, hash of the data and machine, written beside every result."""

import hashlib
import platform
import subprocess
from dataclasses import fields
from importlib import metadata
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch

import mtl_opt
from mtl_opt.data.read.rows import Row
from mtl_opt.training.setup.data import Prepared

PACKAGES = ("mtl_opt", "torch", "transformers", "peft")

_values = attrgetter(*(field.name for field in fields(Row) if field.name not in {"file", "line"}))


def provenance(data: Prepared) -> dict[str, Any]:
    """Collect versions, commit, hash of the data and hardware."""
    return {
        **{package: metadata.version(package) for package in PACKAGES},
        "python": platform.python_version(),
        "git_commit": git_commit(),
        "data_hash": data_hash(data),
        "hardware": hardware(),
    }


def git_commit() -> str | None:
    """Return the commit of this package's sources; None outside of its repository."""
    folder = Path(mtl_opt.__file__).parent

    def git(*words: str) -> str:
        command = ["git", "-C", str(folder), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")  # another project's repository may lie around site-packages
        changed = git("status", "--porcelain", "--untracked-files=no", ".")
        return git("rev-parse", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None


def data_hash(data: Prepared) -> str | None:
    """Hash all rows of all tasks; None where a task is a stream."""
    digest = hashlib.sha256()
    for task in data.tasks:
        if not data.train_rows.get(task):
            return None
        for part in (data.train_rows[task], data.eval_rows[task]):
            digest.update(repr((task, len(part))).encode())
            for row in part:
                digest.update(repr(list(_values(row))).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def hardware() -> str:
    """Format processor, threads and accelerators."""
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return ", ".join([processor(), f"{torch.get_num_threads()} threads", *gpus])


def processor() -> str:
    """Read the name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
