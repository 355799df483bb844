"""Turn four tasks of a folder of T0 rows `{prompt, completion}` into alpaca rows, with a part of each held out.

The model is copied with `<s>` as its eos token: this checkpoint has seen `<s>` between stories and never `</s>`, whose
embedding is that of a token that never occurred. LoRA leaves embeddings frozen, so it could not learn to end an answer.
"""

import json
import random
import shutil
from pathlib import Path

from mtl_opt.errors import InputError

TASKS = {
    "news_topic": "ag_news_classify_with_choices",
    "same_question": "glue_qqp_meaning",
    "cause_effect": "wiqa_effect_with_label_answer",
    "headline": "gigaword_TLDR",
}
END = "<|endoftext|>"
HELD_OUT = 50


def prepare(source: Path, model: Path, target: Path) -> None:
    """Write `TASK.train.jsonl`, `TASK.eval.jsonl` and the folder `model`."""
    if not (source / f"{TASKS['headline']}.jsonl").exists():
        raise InputError(f"The rows are not in `{source}`: `{TASKS['headline']}.jsonl` is missing.")
    target.mkdir(parents=True, exist_ok=True)
    for task, name in TASKS.items():
        text = (source / f"{name}.jsonl").read_text(encoding="utf-8")
        rows = [json.loads(line) for line in text.splitlines()]
        alpaca = [
            {"instruction": row["prompt"].strip(), "input": "", "output": row["completion"].removesuffix(END).strip()}
            for row in rows
        ]
        random.Random(0).shuffle(alpaca)
        for part, chosen in (("eval", alpaca[:HELD_OUT]), ("train", alpaca[HELD_OUT:])):
            lines = (json.dumps(row, ensure_ascii=False) for row in chosen)
            (target / f"{task}.{part}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    copy_model(model, target / "model")


def copy_model(source: Path, target: Path) -> None:
    """Copy a model folder and make its bos token the eos token too."""
    shutil.copytree(source, target, dirs_exist_ok=True, copy_function=shutil.copyfile)
    path = target / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings["eos_token"] = settings["bos_token"]
    path.write_text(json.dumps(settings, indent=2), encoding="utf-8")
