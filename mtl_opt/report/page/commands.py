"""How to reproduce the numbers of a report: commands, versions, configuration, data hash."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtl_opt.report.read.folder import ResultsFolder
from mtl_opt.results import CONFIG_YAML


def reproduce(folder: ResultsFolder) -> dict[str, Any]:
    """Collect what is needed to reproduce the runs."""
    import yaml

    configs = {line["run"]: line["config"] for line in folder.lines}
    shared, differences = split_configs(configs)
    versions: dict[str, list[str]] = {}
    for line in folder.lines:
        for name, value in line["provenance"].items():
            if name not in {"data_hash", "time"} and value is not None:
                texts = versions.setdefault(name, [])
                text = ", ".join(f"{k}: {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
                if text not in texts:
                    texts.append(text)
    hashes = [line["provenance"].get("data_hash") for line in folder.lines]
    return {
        "commands": commands(folder),
        "versions": versions,
        "config": yaml.safe_dump(shared, allow_unicode=True, sort_keys=False) if shared else "",
        "differences": differences,
        "data_hash": next((str(found) for found in hashes if found), None),
    }


def split_configs(configs: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, Any], dict[str, dict[str, str]]]:
    """Separate the settings that all configurations share from those that differ."""
    keys = dict.fromkeys(key for config in configs.values() for key in config)
    shared: dict[str, Any] = {}
    differences: dict[str, dict[str, str]] = {}
    for key in keys:
        values = [config.get(key) for config in configs.values()]
        if all(value == values[0] for value in values) and all(key in config for config in configs.values()):
            shared[key] = values[0]
        elif key not in {"seed", "output_dir"}:
            known = {run: config[key] for run, config in configs.items() if config.get(key) is not None}
            differences[key] = {
                run: value if isinstance(value, str) else compact(value) for run, value in known.items()
            }
    return shared, differences


def compact(value: Any) -> str:
    """Write a setting in one line."""
    return json.dumps(value, ensure_ascii=False, default=str)


def commands(folder: ResultsFolder) -> list[str]:
    """Write the commands that repeat the runs."""
    here = str(folder.path)
    runs = [folder.run_folder(line) for line in folder.lines]
    first = next((run for run in runs if (run / CONFIG_YAML).exists()), runs[0])
    lines = [train_command(first)] if folder.kind == "run" else []
    if folder.kind == "comparison":
        grid = folder.path / CONFIG_YAML
        lines += [f"mtl-opt compare {quoted(grid)} output_dir={quoted(f'{here}_again')}"] if grid.exists() else []
        lines += [train_command(first)]
    return [*lines, f"tensorboard --logdir {quoted(here)}", f"mtl-opt report {quoted(here)}"]


def train_command(run: Path) -> str:
    """Format the command that repeats one run, from its folder."""
    return f"mtl-opt train {quoted(run / CONFIG_YAML)} output_dir={quoted(f'{run}_again')}"


def quoted(text: Any) -> str:
    """Quote an argument for a shell."""
    return shlex.quote(str(text))
