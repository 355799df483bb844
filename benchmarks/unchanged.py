"""Does this tree still train what it trained before? Eight short runs of different kinds, kept and compared.

    python -m benchmarks.unchanged MODEL KEPT           # the first call keeps the runs in KEPT
    python -m benchmarks.unchanged MODEL KEPT           # every later one runs them again and compares

For a change that must not change behaviour. MODEL is a folder with a small Llama and its tokenizer. Adapters must
be equal to the bit; logs, results and tables must hold equal numbers, times and places aside.
"""

import argparse
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file

COMMON = {
    "template": "default",
    "max_steps": 6,
    "logging_steps": 2,
    "save_steps": 3,
    "rows_per_task": 2,
    "learning_rate": 0.01,
}
ROOT = Path(__file__).parents[1]
RUNS: dict[str, dict[str, Any]] = {
    "pcgrad": {"combiner": "pcgrad", "lora_dropout": 0.1},
    "gradnorm": {"combiner": "gradnorm", "finetuning_type": "full", "mixing": "sqrt"},
    "qlora": {"combiner": "nash_mtl", "quantization_bit": 4, "gradient_checkpointing": True},
    "heads": {"combiner": "famo", "heads": {"mood": {"type": "classification"}}},
    "mtl_lora": {"combiner": "cagrad", "sharing": "mtl_lora", "norm_matched": True},
    "packed": {"combiner": "upgrad", "packing": True, "gradient_accumulation_steps": 2, "smoothed": 0.5},
    "compared": {"combiners": ["sum", "pcgrad", "graddrop"], "seeds": [0, 1], "max_steps": 4},
    "two_processes": {"combiner": "mgda", "rows_per_task": 1},
}
TIMES = (
    "time",
    "seconds",
    "second",
    "runtime",
    "overhead",
    "git",
    "evaluating",
    "date",
    "path",
    "dir",
    "folder",
    "host",
    "hardware",
    "bytes",
    "mib",
    "memory",
    "busy",
    "ms",
)
TABLES = {"results.md", "results.tex"}
TIMED = ("step time", "steps/s", "peak MiB")  # columns of a table


def rows(task: str, count: int) -> list[dict[str, str]]:
    """Make up rows of one task; one of three is Chinese."""
    subjects = ["the dog", "a small girl", "my old friend", "小猫", "the king", "她的朋友", "a red bird"]
    moods = ["happy", "sad", "angry"]
    made = []
    for i in range(count):
        subject, mood = subjects[i % len(subjects)], moods[(i * i + len(task)) % 3]
        answer = {
            "mood": mood,
            "story": f"Once, {subject} was {mood}. The end {i % 5}.",
            "问题": f"{subject}, {i * 7 % 10}",
        }[task]
        made.append(
            {"instruction": f"{task} {i}", "input": f"{subject} is {mood} {'very ' * (i % 4)}today.", "output": answer}
        )
    return made


def write_data(folder: Path) -> dict[str, Any]:
    """Write the files of three tasks of different sizes; give their part of the configuration."""
    tasks = {}
    for task, count in {"mood": 40, "story": 25, "问题": 10}.items():
        for part, number in {"train": count, "dev": 6}.items():
            lines = [json.dumps(row, ensure_ascii=False) for row in rows(task, number)]
            if task == "mood":
                lines = [json.dumps({**row, "label": row["output"]}, ensure_ascii=False) for row in rows(task, number)]
            (folder / f"{task}_{part}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        tasks[task] = {"file": f"{task}_train.jsonl", "eval_file": f"{task}_dev.jsonl"}
    return {"tasks": tasks}


def run_all(model: str, folder: Path) -> None:
    """Run every configuration in `folder`, each by the command a user would type."""
    base = {"model_name_or_path": str(Path(model).resolve()), "tokenized_path": "cache", **write_data(folder), **COMMON}
    env = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": str(ROOT)}
    for name, settings in RUNS.items():
        config = {**base, **settings, "output_dir": name}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
        command = [sys.executable, "-m"]
        if name == "two_processes":
            command += ["torch.distributed.run", "--nproc_per_node", "2", "--rdzv-backend", "c10d"]
            command += ["--rdzv-endpoint", "127.0.0.1:0", "-m"]
        verb = "compare" if "combiners" in settings else "train"
        command += ["mtl_opt.cli", verb, f"{name}.yaml"]
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{name} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
        print(f"  {name}", flush=True)


def numbers(value: Any, key: str = "") -> Any:
    """Leave out what differs between two runs of the same thing: times, sizes in memory, places."""
    if any(part in TIMES for part in key.lower().split("_")):
        return None
    if isinstance(value, dict):
        return {k: numbers(v, k) for k, v in value.items()}
    if isinstance(value, list):
        values = [numbers(v, key) for v in value]
        return sorted(values) if key == "target_modules" else values  # a set, which peft writes in any order
    return "nan" if isinstance(value, float) and math.isnan(value) else value


def read(path: Path) -> Any:
    """Read what is compared of a file: tensors as they are, JSON as numbers, tables as text."""
    if path.suffix == ".safetensors":
        tensors = load_file(path)
        return {
            k: (t.dtype, tuple(t.shape), t.flatten().view(torch.uint8).numpy().tobytes()) for k, t in tensors.items()
        }
    if path.suffix == ".json":
        return numbers(json.loads(path.read_text(encoding="utf-8")))
    if path.suffix == ".jsonl":
        return [numbers(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    cells = [re.split(r" [|&] ", line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip("|-: ")]
    timed = {i for line in cells for i, cell in enumerate(line) if cell.strip("| \\").startswith(TIMED)}
    return [[cell.strip("|-: ") for i, cell in enumerate(line) if i not in timed] for line in cells]  # padding is none


def differences(old: Any, new: Any) -> list[str]:
    """Name the places in which two values differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(key for key in new if key not in old)]
        return [f".{key}{place}" for key in keys for place in differences(old.get(key), new.get(key))]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [f"[{i}]{p}" for i, pair in enumerate(zip(old, new, strict=True)) for p in differences(*pair)]
    return [] if old == new else [f": {str(old)[:60]} became {str(new)[:60]}"]


def compare(kept: Path, new: Path) -> tuple[int, list[str]]:
    """Compare the files of both folders; give how many were compared, and a sentence for each that differs."""
    wanted = {".safetensors", ".json", ".jsonl"}
    names = {p.relative_to(f) for f in (kept, new) for p in f.rglob("*") if p.suffix in wanted or p.name in TABLES}
    names = {n for n in names if n.parts[0] in RUNS}
    differing = []
    for name in sorted(names):
        missing = [str(f) for f in (kept, new) if not (f / name).exists()]
        if missing:
            differing.append(f"{name} is missing in {missing[0]}")
        else:
            differing += [f"{name}{place}" for place in differences(read(kept / name), read(new / name))]
    return len(names), differing


def main() -> int:
    """Keep the runs, or compare with those kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder of a small Llama with its tokenizer")
    parser.add_argument("kept", type=Path, help="folder in which the runs are kept")
    arguments = parser.parse_args()
    if not arguments.kept.exists():
        arguments.kept.mkdir(parents=True)
        run_all(arguments.model, arguments.kept)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        run_all(arguments.model, Path(folder))
        count, differing = compare(arguments.kept, Path(folder))
    print("\n".join(differing) or f"{count} files of {len(RUNS)} runs: nothing changed")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
