"""Where the runs of a comparison are trained: in this process one by one, or in worker processes.

Threads of a `ThreadPoolExecutor` hand the runs to the workers. A `ProcessPoolExecutor` would not do: Ctrl-C reaches its
processes besides their parent, the death of one ends the others by SIGTERM before they have saved, and its error names
neither the run nor the exit code.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Any

import torch

from mtl_opt.comparison.grid import GridRun
from mtl_opt.comparison.one_run import DataCache, run_one
from mtl_opt.errors import InputError
from mtl_opt.training.run.loop import Interrupted

FOLDER = "jobs"
"""Folder of the workers' logs, below that of the comparison."""

Reply = dict[str, Any]
"""What `run_one` returns."""


def run_here(runs: Iterable[GridRun], cache: DataCache) -> Iterator[tuple[GridRun, Reply]]:
    """Train runs one after the other in this process."""
    for run in runs:
        yield run, run_one(run.name, run.config, cache)


class Worker:
    """One process that trains runs, see `worker_process.py`.

    Args:
        number: Counted from 0; names its log and chooses its GPU.
        jobs: Number of workers, which share the threads of the machine.
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

    def train(self, run: GridRun) -> Reply:
        """Have a run trained and wait for its reply."""
        job = {"name": run.name, "config": asdict(run.config)}
        with contextlib.suppress(BrokenPipeError):  # reading the answer says so
            self.input.write(json.dumps(job).encode() + b"\n")
            self.input.flush()
        text = self.output.readline()
        if not text.endswith(b"\n"):
            code = self.process.wait()
            raise InputError(f"Run `{run.name}`: its process ended with exit code {code}; see `{self.log}`.")
        reply = json.loads(text)
        if "error" in reply:
            raise InputError(reply["error"])
        if "interrupted" in reply:
            raise Interrupted(reply["interrupted"])
        return reply

    def interrupt(self) -> None:
        """Interrupt it: it finishes the step under way, saves and stops."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)

    def close(self) -> None:
        """End it once it is idle."""
        with contextlib.suppress(BrokenPipeError):
            self.input.close()
        self.process.wait()
        self.output.close()


class Workers:
    """Train several runs at a time, each in a process of its own that lives until the end.

    Args:
        jobs: Runs at a time.
        output: Folder of the comparison.
    """

    def __init__(self, jobs: int, output: Path) -> None:
        self.jobs, self.output = jobs, output
        self.workers: list[Worker] = []
        self.idle: SimpleQueue[Worker] = SimpleQueue()
        self.threads = ThreadPoolExecutor(jobs)
        self.futures: list[Future[Reply]] = []

    def __enter__(self) -> "Workers":
        return self

    def run(self, runs: Sequence[GridRun]) -> Iterator[tuple[GridRun, Reply]]:
        """Train runs, several at a time, and yield each as it finishes."""
        while len(self.workers) < min(self.jobs, len(runs)):
            self.workers.append(Worker(len(self.workers), self.jobs, self.output / FOLDER))
            self.idle.put(self.workers[-1])
        futures = {self.threads.submit(self._train, run): run for run in runs}
        self.futures += futures
        for future in as_completed(futures):
            yield futures[future], future.result()

    def _train(self, run: GridRun) -> Reply:
        """Train a run in a worker that is idle; the first failure keeps the runs that wait from starting."""
        worker = self.idle.get()
        try:
            return worker.train(run)
        except BaseException:
            self.threads.shutdown(wait=False, cancel_futures=True)
            raise
        finally:
            self.idle.put(worker)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all workers; where something went wrong, those at work save what they have first."""
        try:
            self.threads.shutdown(wait=False, cancel_futures=True)
            if kind is not None:
                for worker in self.workers:
                    worker.interrupt()
            self.threads.shutdown()
            for worker in self.workers:
                worker.close()
        except KeyboardInterrupt:  # a second Ctrl-C
            for worker in self.workers:
                worker.process.kill()
            raise
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            ended = [future.exception() for future in self.futures if not future.cancelled()]
            sentences = [str(one) for one in ended if isinstance(one, Interrupted)]
            raise Interrupted(" ".join(dict.fromkeys(sentences)) or "Stopped.") from error
