"""Start real processes with `torchrun` on loopback."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]


def torchrun(processes: int, *arguments: str, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    """Run a module or script in several processes and wait for all.

    One thread each: more threads than cores would wait for each other.
    """
    return subprocess.run(
        command(processes, arguments), capture_output=True, text=True, timeout=timeout, env=environment(), check=False
    )


def command(processes: int, arguments: Sequence[str]) -> list[str]:
    """Build the command line; any free port of loopback is taken."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(processes)]
    return [*launcher, "--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", *arguments]


def environment() -> dict[str, str]:
    """Give the processes this checkout, one thread, and no warnings of their own."""
    paths = [str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
    own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(p for p in paths if p), "GLOO_SOCKET_IFNAME": "lo"}
    return {**os.environ, **own}
