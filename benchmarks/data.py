"""What do data cost: tokenising beside the tokenizer alone, starting from the cache, drawing a step?

python -m benchmarks.data [--rows 1000000] [--tasks 40] [--json]
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.command import add_outputs, output
from benchmarks.sizes import SIZES
from benchmarks.timer import environment, interleaved
from benchmarks.variants import build_step
from benchmarks.workload import build_model, build_workload
from mtl_opt.data import MIXINGS, Encoder, Facts, Row, Sampler, build_mixer, get_template
from mtl_opt.data.store.tables import TokenTable
from mtl_opt.examples.support_desk.rows import pretraining_texts
from mtl_opt.examples.tiny_llama import train_tokenizer

VOCABULARY = 4000
ROUNDS = 7


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of all tasks together (1000000)")
    parser.add_argument("--tasks", type=int, default=40, help="number of tasks (40)")
    parser.add_argument("--texts", type=int, default=20_000, help="rows that are tokenised (20000)")
    add_outputs(parser, "data")
    parser.add_argument("--start", metavar="CONFIG", help=argparse.SUPPRESS)  # the process whose start is measured
    return parser.parse_args(argv)


def make_rows(number: int) -> list[Row]:
    """Make rows of a support desk, English, some lines long."""
    texts = pretraining_texts(number, seed=0)
    chance = random.Random(0)
    return [
        Row(f"Question {i}: what follows?", text, " ".join(chance.sample(text.split(), min(12, len(text.split())))),
            None, "rows.jsonl", i)
        for i, text in enumerate(texts)
    ]  # fmt: skip


def tokenizing(rows: Sequence[Row], tokenizer: Any) -> dict[str, Any]:
    """Time our tokenising beside what the tokenizer does by itself on the same texts."""
    encoder = Encoder(tokenizer, get_template("default"), 4096)
    texts = [text for row in rows for text in encoder.texts(row)]
    backend = tokenizer.backend_tokenizer

    def alone() -> None:
        tokenizer(texts, add_special_tokens=False, return_attention_mask=False, return_token_type_ids=False)

    def bare() -> None:
        for encoding in backend.encode_batch_fast(texts, add_special_tokens=False):
            _ = encoding.ids

    variants = {
        "rows": lambda: TokenTable.from_chunks(encoder.chunks(rows)) and None,
        "tokenizer": alone,
        "backend": bare,
    }
    timings = interleaved(variants, ROUNDS, 1, lambda: None, lambda: None)
    ours = timings["rows"]
    return {
        "seconds": {name: found.seconds for name, found in timings.items()},
        "speed_of_tokenizer": [1 / ratio for ratio in vars(ours.ratio_to(timings["tokenizer"])).values()][::-1],
        "speed_of_backend": [1 / ratio for ratio in vars(ours.ratio_to(timings["backend"])).values()][::-1],
    }


def write_tasks(folder: Path, num_rows: int, num_tasks: int, tokenizer: Any) -> Path:
    """Write task files of very different sizes, a tokenizer and a configuration."""
    tokenizer.save_pretrained(folder / "model")
    patterns = [row.user_text for row in make_rows(500)]
    weights = [1 / (task + 1) for task in range(num_tasks)]
    tasks, number = {}, 0
    for task, weight in enumerate(weights):
        path = folder / f"task{task}.jsonl"
        size = max(20, round(num_rows * weight / sum(weights)))
        with path.open("w", encoding="utf-8") as file:
            for i in range(size):
                row = {"instruction": f"{number} {patterns[i % 500]}", "output": f"answer {i % 97} of {task}"}
                file.write(json.dumps(row) + "\n")
                number += 1
        tasks[f"task{task}"] = {"file": str(path)}
    config = {
        "model_name_or_path": str(folder / "model"), "output_dir": str(folder / "out"), "tasks": tasks,
        "tokenized_path": str(folder / "cache"), "mixing": "temperature", "val_size": 0.001,
    }  # fmt: skip
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def anonymous_mb() -> float:
    """Tell how much memory of this process is no mapped file, in MB; only Linux tells."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon")) / 1024


def start(path: str) -> dict[str, float]:
    """Start a run's data: prepare all rows, build the sampler, make the first batches; measure time and memory."""
    from mtl_opt.training import read_yaml, train_config
    from mtl_opt.training.setup.data import prepare
    from mtl_opt.training.setup.loader import batch_maker
    from mtl_opt.training.setup.sampler import build_sampler

    config = train_config(read_yaml(path, []))
    before, peak, done = anonymous_mb(), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            peak[0] = max(peak[0], anonymous_mb())

    watcher = threading.Thread(target=watch)
    watcher.start()
    begin = time.perf_counter()
    prepared = prepare(config)
    sampler, _ = build_sampler(config, prepared)
    batch_maker(config, prepared)([sampler.draw() for _ in range(10)])
    seconds = time.perf_counter() - begin
    done.set()
    watcher.join()
    rows = sum(len(found) for found in prepared.train.values())
    return {"seconds": seconds, "peak_mb": peak[0] - before, "mb": anonymous_mb() - before, "rows": rows}


def starting(settings: argparse.Namespace, tokenizer: Any) -> dict[str, Any]:
    """Start twice in processes of their own: the first one fills the cache, the second one reads it."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        config = write_tasks(Path(folder), settings.rows, settings.tasks, tokenizer)
        for name in ("first", "from_cache"):
            command = [sys.executable, "-m", "benchmarks.data", "--start", str(config)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[name] = json.loads(done.stdout.splitlines()[-1])
    return found


def sampling() -> dict[str, Any]:
    """Time the drawing of a step under every mixing beside the step itself, of a small model."""
    torch.set_num_threads(1)
    device = torch.device("cpu")
    size, num_tasks = SIZES["small"], 8
    work = build_workload(build_model(size, device), size, num_tasks)
    rows = len(work.task_ids) // num_tasks
    sizes = {f"t{i}": 1000 * (i + 1) for i in range(num_tasks)}
    facts = Facts(sizes, 1000, rows * num_tasks, 0, dict.fromkeys(sizes, 10.0), dict.fromkeys(sizes, 1 / num_tasks))
    points = [[0, dict.fromkeys(sizes, 1 / num_tasks)]]
    samplers = {
        name: Sampler(sizes, rows, 0, build_mixer(name, facts, {"points": points} if name == "ratio_schedule" else {}))
        for name in MIXINGS
    }

    def draws(sampler: Sampler) -> Any:
        return lambda: [sampler.draw() for _ in range(20)] and None

    step = build_step("one_pass", work)
    variants: dict[str, Any] = {"step": step, **{name: draws(sampler) for name, sampler in samplers.items()}}
    timings = interleaved(variants, ROUNDS, 2, lambda: None, lambda: None)
    whole = timings.pop("step")
    medians = {name: sorted(found.seconds)[ROUNDS // 2] / 20 for name, found in timings.items()}
    seconds = sorted(whole.seconds)[ROUNDS // 2]
    return {"step_seconds": seconds, "draw_seconds": medians, "largest_share": max(medians.values()) / seconds}


def targets(result: dict[str, Any]) -> list[tuple[str, float, str, float]]:
    """Put what was measured beside what is wanted."""
    start_ = result["start"]["from_cache"]
    return [
        ("tokenising, part of the tokenizer's speed", result["tokenising"]["speed_of_tokenizer"][1], ">=", 0.8),
        ("start from cache, seconds", start_["seconds"], "<=", 30),
        ("memory above imports at the peak, MB", start_["peak_mb"], "<=", 200),
        ("drawing, part of a step", result["sampling"]["largest_share"], "<=", 0.01),
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    settings = arguments(argv)
    if settings.start:
        print(json.dumps(start(settings.start)))
        return
    rows = make_rows(settings.texts)
    tokenizer = train_tokenizer([row.user_text for row in rows[:2000]], VOCABULARY)
    result = {
        "benchmark": "data",
        "environment": environment(torch.device("cpu")),
        "rows": settings.rows,
        "tasks": settings.tasks,
        "tokenising": tokenizing(rows, tokenizer),
        "start": starting(settings, tokenizer),
        "sampling": sampling(),
    }
    output(result, settings, table)


def table(result: dict[str, Any]) -> str:
    """Lay a result out for reading."""
    lines = [f"{what:45} {found:10.4f}   wanted {sign} {wanted}" for what, found, sign, wanted in targets(result)]
    lines.append(f"tokenising, part of the backend's speed       {result['tokenising']['speed_of_backend'][1]:10.4f}")
    lines.append(f"first start, seconds                          {result['start']['first']['seconds']:10.4f}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
