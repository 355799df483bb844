"""Turn four tasks of a folder of T0 rows `{prompt, completion}` into alpaca rows, with a part of each held out.

python -m experiments.t0_tasks.prepare ../shared/data/t0_per_task
"""

import argparse
import json
import random
from pathlib import Path

TASKS = {
    "news_topic": "ag_news_classify_with_choices",
    "same_question": "glue_qqp_meaning",
    "cause_effect": "wiqa_effect_with_label_answer",
    "headline": "gigaword_TLDR",
}
END = "<|endoftext|>"
HELD_OUT = 50


def main() -> None:
    """Write `{task}.train.jsonl` and `{task}.eval.jsonl` for the four tasks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="folder with one JSONL file of {prompt, completion} per task")
    parser.add_argument("--to", type=Path, default=Path("outputs/t0_tasks_data"), help="folder to write to")
    options = parser.parse_args()
    options.to.mkdir(parents=True, exist_ok=True)
    for task, name in TASKS.items():
        text = (options.source / f"{name}.jsonl").read_text(encoding="utf-8")
        rows = [json.loads(line) for line in text.splitlines()]
        alpaca = [
            {"instruction": row["prompt"].strip(), "input": "", "output": row["completion"].removesuffix(END).strip()}
            for row in rows
        ]
        random.Random(0).shuffle(alpaca)
        for part, chosen in (("eval", alpaca[:HELD_OUT]), ("train", alpaca[HELD_OUT:])):
            lines = (json.dumps(row, ensure_ascii=False) for row in chosen)
            (options.to / f"{task}.{part}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(f"{task}: {len(alpaca) - HELD_OUT} rows to train on, {HELD_OUT} held out")


if __name__ == "__main__":
    main()
