"""Where the runs of a comparison take place: one after the other here, or several at a time in worker processes."""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from mtl_opt.comparison.grid import Entry
from mtl_opt.comparison.one_run import DataCache, run_one
from mtl_opt.errors import InputError
from mtl_opt.training.run.loop import Interrupted

FOLDER = "jobs"
"""Folder of the workers' logs, below that of the comparison."""

Reply = dict[str, Any]


def run_here(entries: Iterable[Entry], cache: DataCache) -> Iterator[tuple[Entry, Reply]]:
    """Train runs one after the other in this process."""
    for entry in entries:
        yield entry, run_one(entry.name, entry.config, cache)


class Worker:
    """One process that trains runs, see `worker.py`.

    Args:
        number: Its number.
        jobs: How many there are.
        folder: Folder of its log.
    """

    def __init__(self, number: int, jobs: int, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / f"worker-{number}.log"
        environment = dict(os.environ)
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
        if torch.cuda.device_count() > 1 and "CUDA_VISIBLE_DEVICES" not in environment:
            environment["CUDA_VISIBLE_DEVICES"] = str(number % torch.cuda.device_count())
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mtl_opt.comparison.worker_process"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                start_new_session=True,  # Ctrl-C goes to the parent alone, which passes it on once
            )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.input, self.output = self.process.stdin, self.process.stdout
        self.entry: Entry | None = None

    def start(self, entry: Entry) -> None:
        """Give it a run."""
        self.entry = entry
        job = {"name": entry.name, "config": asdict(entry.config)}
        try:
            self.input.write(json.dumps(job).encode() + b"\n")
            self.input.flush()
        except BrokenPipeError:
            return  # reading its answer says so

    def answer(self) -> tuple[Entry, Reply]:
        """Wait for the reply to the run it was given."""
        assert self.entry is not None
        entry, self.entry = self.entry, None
        text = self.output.readline()
        if not text.endswith(b"\n"):
            code = self.process.wait()
            raise InputError(f"Run `{entry.name}`: its process ended with exit code {code}; see `{self.log}`.")
        return entry, json.loads(text)

    def interrupt(self) -> None:
        """Ask it to finish the step under way, save and stop."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)

    def close(self) -> None:
        """Let it end."""
        with contextlib.suppress(BrokenPipeError):
            self.input.close()
        self.process.wait()
        self.output.close()


class Workers:
    """Train several runs at a time, each in a process of its own.

    Args:
        jobs: How many at a time.
        output: Folder of the comparison.
    """

    def __init__(self, jobs: int, output: Path) -> None:
        self.jobs, self.output = jobs, output
        self.workers: list[Worker] = []

    def __enter__(self) -> "Workers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all workers; where something went wrong, the others save what they have first."""
        sentences = []
        try:
            if kind is not None:
                for worker in self.workers:
                    worker.interrupt()
                sentences = [self._last_word(worker) for worker in self.workers if worker.entry is not None]
            for worker in self.workers:
                worker.close()
        except KeyboardInterrupt:  # a second Ctrl-C
            for worker in self.workers:
                worker.process.kill()
            raise
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            raise Interrupted(" ".join(dict.fromkeys(filter(None, sentences))) or "Stopped.") from error

    @staticmethod
    def _last_word(worker: Worker) -> str:
        """Read what a worker that was interrupted says; nothing where it had just finished."""
        try:
            return str(worker.answer()[1].get("interrupted", ""))
        except InputError:
            return ""

    def run(self, entries: Sequence[Entry]) -> Iterator[tuple[Entry, Reply]]:
        """Train runs, several at a time."""
        waiting = deque(entries)
        while len(self.workers) < min(self.jobs, len(entries)):
            self.workers.append(Worker(len(self.workers), self.jobs, self.output / FOLDER))
        with selectors.DefaultSelector() as selector:
            for worker in self.workers[: len(entries)]:
                selector.register(worker.output, selectors.EVENT_READ, worker)
                worker.start(waiting.popleft())
            left = len(entries)
            while left:
                for key, _ in selector.select():
                    entry, reply = key.data.answer()
                    left -= 1
                    if waiting and "error" not in reply:
                        key.data.start(waiting.popleft())
                    if "error" in reply:
                        raise InputError(reply["error"])
                    yield entry, reply
