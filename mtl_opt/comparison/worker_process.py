"""A process that trains the runs it reads from stdin, one JSON line each, and replies on stdout, one JSON line each.

`mtl-opt compare` starts as many as `jobs` says. A worker lives as long as the comparison, so that libraries are
loaded and rows are tokenised once; it writes into run folders only, never into `results.jsonl`.
"""

import json
import logging
import os
import signal
import sys
import threading
import time
import warnings
from typing import Any

from mtl_opt.comparison.one_run import DataCache, run_one
from mtl_opt.errors import InputError
from mtl_opt.training.config.run_config import train_config


def main() -> int:
    """Train runs until stdin ends; return the exit code: 0 done, 130 interrupted."""
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever a library prints goes into the log
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("mtl_opt").setLevel(logging.INFO)
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
    threading.Thread(target=_stop_without_parent, args=(os.getppid(),), daemon=True).start()
    cache = DataCache()
    try:
        for text in sys.stdin:
            reply = _reply(json.loads(text), cache)
            print(json.dumps(reply), file=channel, flush=True)
            if "interrupted" in reply:
                return 130
    except KeyboardInterrupt:
        return 130
    return 0


def _reply(job: dict[str, Any], cache: DataCache) -> dict[str, Any]:
    """Train one run; bad input and Ctrl-C travel as sentences."""
    try:
        return run_one(job["name"], train_config(job["config"]), cache)
    except InputError as error:
        return {"error": str(error)}
    except KeyboardInterrupt as error:
        return {"interrupted": str(error) or "Stopped."}


def _stop_without_parent(parent: int) -> None:
    """Stop as by Ctrl-C once the process that started this one is gone."""
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGINT)


if __name__ == "__main__":
    sys.exit(main())
