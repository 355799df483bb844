"""What every test shares: a fixed seed, one thread, and tiny real models."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

sys.path.append(str(Path(__file__).parent))  # tests import their oracles as `references.x`

from tiny_run import build_data, build_model, write_config

from mtl_opt import cli

VOCAB = 61


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Start every test from the same random state."""
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Threads cost more than they bring on tensors this small."""
    torch.set_num_threads(1)


@pytest.fixture
def make_llama() -> Callable[..., nn.Module]:
    """Build a Llama of two layers: with LoRA on all linear layers, or with everything trainable and nothing tied."""

    def make(lora: bool = True, lora_dropout: float = 0.0, tied: bool = False, **lora_args: object) -> nn.Module:
        from transformers import LlamaConfig, LlamaForCausalLM

        config = LlamaConfig(
            vocab_size=VOCAB,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=32,
            tie_word_embeddings=tied,
            use_cache=False,
        )
        model = LlamaForCausalLM(config)
        return with_lora(model, lora_dropout, **lora_args) if lora else model

    return make


@pytest.fixture
def make_bert() -> Callable[..., nn.Module]:
    """Build a BERT of two layers that classifies rows, dropout off: with LoRA, or with everything trainable."""

    def make(lora: bool = True, lora_dropout: float = 0.0, **lora_args: object) -> nn.Module:
        from transformers import BertConfig, BertForSequenceClassification

        config = BertConfig(
            vocab_size=VOCAB,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=32,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            num_labels=3,
        )
        model = BertForSequenceClassification(config)
        return with_lora(model, lora_dropout, **lora_args) if lora else model

    return make


def with_lora(model: nn.Module, dropout: float, **lora_args: object) -> nn.Module:
    """Put adapters on all linear layers, both factors random so that no gradient is zero."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=4, lora_alpha=8, lora_dropout=dropout, target_modules="all-linear", init_lora_weights=False, **lora_args
    )
    return get_peft_model(model, config)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Save the tiny model once."""
    return build_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def task_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """Write the data once."""
    return build_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def settings(tmp_path: Path, model_folder: str, task_files: dict[str, dict[str, str]]) -> dict[str, Any]:
    """Give the settings of a run of four steps into `run`, with every number of each step logged."""
    return {
        "model_name_or_path": model_folder,
        "tasks": {task: dict(files) for task, files in task_files.items()},
        "output_dir": str(tmp_path / "run"),
        "lora_rank": 2,
        "rows_per_task": 2,
        "learning_rate": 0.01,
        "max_steps": 4,
        "cutoff_len": 48,
        "logging_steps": 1,
        "save_steps": None,
        "max_new_tokens": 3,
        "shadow_combiners": "none",  # thirty methods a step, which their own tests switch on
    }


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a verb that must refuse its input: exit code 2 and one sentence, which is returned."""

    def run(settings: Any, *overrides: str, verb: str = "train") -> str:
        path = write_config(tmp_path / "config.yaml", settings) if isinstance(settings, dict) else str(settings)
        assert cli.main([verb, path, *overrides]) == 2
        out, err = capsys.readouterr()
        lines = [line for line in err.splitlines() if line.startswith("mtl-opt: error: ")]
        assert len(lines) == 1, err
        assert "Traceback" not in out + err
        assert err.rstrip("\n").endswith(lines[0]), err
        return lines[0].removeprefix("mtl-opt: error: ")

    return run
