"""Every real chat template from labels to a fresh process: learnt, generated, measured and exported with one end."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from template_tokenizer import FOLDER, TRL, chat_tokenizer, special_tokens, template_source
from tiny_run import config_of, write_jsonl
from transformers import LlamaConfig, LlamaForCausalLM

from mtl_opt.data import Encoder, Row, get_template
from mtl_opt.data.text.answer_frame import exported_template
from mtl_opt.deploy import export, open_answering, prompt_row
from mtl_opt.errors import InputError
from mtl_opt.results import read_results
from mtl_opt.training import train

NAMES = [*sorted(path.stem for path in FOLDER.glob("*.jinja")), "glm4"] if TRL else ["glm4"]
REFUSED = {"deepseek_r1_distill", "deepseek_r1_distill_training", "deepseekv3", "deepseekv3_training"}
"""Their generation prompt opens a think block that no rendered answer has."""
QUESTION, ANSWER = "Is it fine?", "yes"


def save_base(folder: Path, source: str, special: list[str]) -> str:
    tokenizer = chat_tokenizer(source, special)
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
            bos_token_id=tokenizer.bos_token_id, max_position_embeddings=4096, **shape,
        )
    ).save_pretrained(folder)  # fmt: skip
    tokenizer.save_pretrained(folder)
    return str(folder)


def overfit(folder: Path, name: str, template: str, special: list[str]) -> Path:
    """Train one answer, check what the run itself makes of it, and export it."""
    base = save_base(folder / "base", template_source(name), special)
    file = write_jsonl(folder / "rows.jsonl", [{"instruction": QUESTION, "output": ANSWER}] * 2)
    settings = {
        "model_name_or_path": base, "output_dir": str(folder / "run"), "template": template,
        "tasks": {"a": {"file": file, "eval_file": file, "metrics": ["exact_match"]}},
        "finetuning_type": "full", "learning_rate": 0.01, "max_steps": 25, "rows_per_task": 1, "cutoff_len": 4000,
        "max_new_tokens": 12, "logging_steps": 25, "save_steps": None, "shadow_combiners": "none",
        "lr_scheduler_type": "constant",
    }  # fmt: skip
    train(config_of(settings))
    assert read_results(folder / "run")["eval_a_exact_match"] == 1.0, name
    ((_, said),) = open_answering(folder / "run").answer([prompt_row(QUESTION)], ["a"], max_new_tokens=12)
    assert said.strip() == ANSWER, name
    return export(folder / "run")["a"]


def check_labels(name: str, template: str, special: list[str]) -> tuple[str, ...]:
    """Check what is learnt, and how an export prompts; return the prompt, the answer, and the token that ends it."""
    tokenizer = chat_tokenizer(template_source(name), special)
    encoder = Encoder(tokenizer, get_template(template), 4000)
    row = Row(QUESTION, "", ANSWER, None, "f.jsonl", 1)
    labels = [label for label in encoder.encode([row])[0].labels if label >= 0]
    frame = encoder.frame
    assert tokenizer.decode(labels) == ANSWER + frame.tail + frame.closing, name
    assert any(label in frame.ends for label in labels), name
    end = tokenizer.decode(next(label for label in labels if label in frame.ends))
    prompt = tokenizer.decode(encoder.prompt(row))
    if template == "tokenizer":
        tokenizer.chat_template = exported_template(tokenizer.chat_template, frame)
        assert encoder.filled.facts.renderer.text([{"role": "user", "content": QUESTION}], ask=True) == prompt, name
    return prompt, tokenizer.decode(labels), end


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_template_answers_and_stops_from_labels_to_a_fresh_process(tmp_path: Path) -> None:
    """The matrix: what is not refused by name learns one answer and gives it everywhere."""
    if TRL is None:
        pytest.skip("needs trl, a development dependency")
    special = sorted({token for name in NAMES for token in special_tokens(template_source(name))})
    ends, done = {}, set()
    pairs = [(name, "tokenizer") for name in NAMES] + [("qwen2_5", "chatml"), ("llama3", "llama3"), ("phi3", "default")]
    for name, template in pairs:
        if name in REFUSED:
            with pytest.raises(InputError, match="choose another `template`"):
                check_labels(name, template, special)
            continue
        texts = check_labels(name, template, special)
        if (texts, template) in done:  # the same tokens, labels and end as a template before it
            continue
        done.add((texts, template))
        folder = overfit(tmp_path / f"{name}-{template}", name, template, special)
        if template in {"tokenizer", "chatml"}:  # the others prompt otherwise than the tokenizer's chat template
            ends[str(folder)] = texts[-1]
    script = Path(__file__).parent / "plain_answers.py"
    out = tmp_path / "answers.json"
    subprocess.run([sys.executable, str(script), QUESTION, str(out), *ends], check=True, cwd=tmp_path)
    answers = json.loads(out.read_text(encoding="utf-8"))
    assert {folder: [said.strip(), end] for folder, (said, end) in answers.items()} == {
        folder: [ANSWER, end] for folder, end in ends.items()
    }
    assert len(ends) > 20
