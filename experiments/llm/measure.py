"""Are these configurations for real hub models right, and what would they take? A dry run without a network.

Every YAML file of this folder is read as `mtl-opt train` reads it. For each model a folder with its architecture
(`config.json`, the sizes of its model card) and a small tokenizer of our own stands in for the hub; `mtl-opt plan` then
builds the model on torch's device `meta`, where weights take no memory. Sizes of weights and gradients are those of the
real model; numbers of tokens are those of the small tokenizer, so that activations and logits are estimates.
"""

import argparse
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import LlamaConfig, PretrainedConfig, Qwen2Config

from experiments.command import say
from mtl_opt.examples.support_desk.rows import pretraining_texts, write_files
from mtl_opt.examples.tiny_llama import train_tokenizer
from mtl_opt.training import read_yaml, train_config
from mtl_opt.training.preview.plan import plan_run

FOLDER = Path(__file__).parent
TEXTS, VOCABULARY = 500, 2000

ARCHITECTURES: dict[str, tuple[PretrainedConfig, int]] = {
    "Qwen/Qwen2.5-0.5B": (
        Qwen2Config(
            vocab_size=151_936,
            hidden_size=896,
            intermediate_size=4864,
            num_hidden_layers=24,
            num_attention_heads=14,
            num_key_value_heads=2,
            tie_word_embeddings=True,
        ),
        494_032_768,
    ),
    "Qwen/Qwen2.5-1.5B": (
        Qwen2Config(
            vocab_size=151_936,
            hidden_size=1536,
            intermediate_size=8960,
            num_hidden_layers=28,
            num_attention_heads=12,
            num_key_value_heads=2,
            tie_word_embeddings=True,
        ),
        1_543_714_304,
    ),
    "meta-llama/Llama-3.2-1B": (
        LlamaConfig(
            vocab_size=128_256,
            hidden_size=2048,
            intermediate_size=8192,
            num_hidden_layers=16,
            num_attention_heads=32,
            num_key_value_heads=8,
            tie_word_embeddings=True,
        ),
        1_235_814_400,
    ),
    "HuggingFaceTB/SmolLM2-360M": (
        LlamaConfig(
            vocab_size=49_152,
            hidden_size=960,
            intermediate_size=2560,
            num_hidden_layers=32,
            num_attention_heads=15,
            num_key_value_heads=5,
            tie_word_embeddings=True,
        ),
        361_821_120,
    ),
}
"""The architecture of every model, and its published number of parameters."""


def configurations() -> list[Path]:
    """List the configurations of this folder."""
    return sorted(FOLDER.glob("*.yaml"))


def stand_in(name: str, folder: Path) -> Path:
    """Write what a plan reads of a hub model: its architecture, and a small tokenizer."""
    target = folder / name.replace("/", "--")
    if not target.exists():
        architecture, _ = ARCHITECTURES[name]
        architecture.architectures = [f"{type(architecture).__name__.removesuffix('Config')}ForCausalLM"]
        architecture.save_pretrained(target)
        train_tokenizer(pretraining_texts(TEXTS, seed=0), VOCABULARY).save_pretrained(target)
    return target


def dry_run(path: Path, data: Path, models: Path) -> dict[str, Any]:
    """Read a configuration and plan its run."""
    settings = read_yaml(str(path), [])
    config = train_config(settings)  # as it stands in the file
    local = {name: _moved(files, data) for name, files in settings["tasks"].items()}
    changes = {"model_name_or_path": str(stand_in(config.model_name_or_path, models)), "tasks": local}
    found = plan_run(train_config({**settings, **changes, "tokenized_path": str(models / "tokens" / path.stem)}))
    return {"model": config.model_name_or_path, "combiner": config.combiner, "tasks": list(local), **found.to_json()}


def _moved(files: Mapping[str, Any], data: Path) -> dict[str, Any]:
    """Point a task's files to where the data were written."""
    return {key: str(data / Path(value).name) if "file" in key else value for key, value in files.items()}


def write_data(folder: Path) -> None:
    """Write the support desk's rows, one file per task and part; what a task is called is up to the configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    write_files(folder)
    for path in folder.glob("*.jsonl"):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        named = ({key: value for key, value in row.items() if key != "task_name"} for row in rows)
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in named), encoding="utf-8")


def measure(options: argparse.Namespace) -> Mapping[str, Any]:
    """Plan every configuration and judge."""
    data = options.output / "data"
    write_data(data)
    models = Path(tempfile.mkdtemp(prefix="llm-"))
    try:
        plans = {}
        for path in configurations():
            plans[path.stem] = dry_run(path, data, models)
            say(f"{path.stem}: {plans[path.stem]['memory']['total'] / 2**30:.2f} GiB")
    finally:
        shutil.rmtree(models)
    return {"verdicts": verdicts(plans), "plans": plans}


def verdicts(plans: Mapping[str, Mapping[str, Any]]) -> dict[str, bool]:
    """Judge the plans."""
    lora, qlora = plans["qwen2.5_0.5b_lora"]["memory"], plans["qwen2.5_0.5b_qlora"]["memory"]
    base = {name: found["parameters"] - found["shared"] - found["private"] for name, found in plans.items()}
    return {
        f"All {len(plans)} configurations are valid for `mtl-opt train`": len(plans) == len(configurations()),
        "Every model has its published number of parameters": all(
            base[name] == ARCHITECTURES[found["model"]][1] for name, found in plans.items()
        ),
        "LoRA of rank 16 on all linear layers trains under 3 % of the parameters": all(
            found["shared"] < 0.03 * found["parameters"] for found in plans.values()
        ),
        "All task gradients come from one backward": all(found["engine"] == "one_pass" for found in plans.values()),
        "4 bits take the weights of the 0.5B model to under half": qlora["weights"] < lora["weights"] / 2,
        "Rows of task gradients take less memory than the weights": all(
            found["memory"]["gradient_rows"] < found["memory"]["weights"] for found in plans.values()
        ),
        "No plan exceeds 8 GiB per process": all(found["memory"]["total"] < 8 * 2**30 for found in plans.values()),
    }
