"""`mtl-opt export` and `generate`: a trained run as plain models, or answering prompts."""

import argparse
import sys
from typing import Any

from mtl_opt.checks import one_of
from mtl_opt.cli.common import JSON, print_json
from mtl_opt.errors import InputError

EXPORT = """examples:
  mtl-opt export outputs/run                                 one plain model per task, in outputs/run/exported
  mtl-opt export config.yaml export_dir=models/desk --task qa
  mtl-opt export outputs/run --dtype bfloat16                half the size
  mtl-opt export outputs/run --bits 4                        quantised by bitsandbytes (export_quantization_bit=4)
  mtl-opt export outputs/run --adapter                       peft folders instead of merged models
  mtl-opt export outputs/qlora --dequantize                  the 4-bit base written out in full, adapters merged into it
  mtl-opt export outputs/run/checkpoint-200 export_dir=models/early
"""
GENERATE = """examples:
  mtl-opt generate outputs/run --task qa --prompt "What does the kettle cost?"
  mtl-opt generate outputs/run --task qa --file rows.jsonl > answers.jsonl
  mtl-opt generate outputs/run --file mixed.jsonl            rows name their own task (task_name); one batch mixes tasks
  mtl-opt generate outputs/run/exported --task qa --prompt "..." --temperature 0.7
"""


def add_export(verbs: Any) -> None:
    """Add `export` to the command line."""
    verb = verbs.add_parser(
        "export", help="write a trained run as plain models, one per task", epilog=EXPORT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    verb.add_argument("where", metavar="RUN", help="folder of a run or checkpoint, or its YAML")
    verb.add_argument("overrides", nargs="*", metavar="key=value", help="export_dir=FOLDER, and settings of the run")
    verb.add_argument("--task", action="append", help="a task to write; may stand several times (all)")
    verb.add_argument("--adapter", action="store_true", help="write peft folders, merge nothing")
    verb.add_argument("--dtype", help="float32, bfloat16 or float16 (that of the base in training)")
    verb.add_argument("--dequantize", action="store_true", help="write a 4-bit base out in full and merge into that")
    verb.add_argument("--bits", help="4 or 8: quantise by bitsandbytes, and say how far the outputs move")
    verb.add_argument("--shard-size", default="5GB", help="largest file (5GB)")
    verb.add_argument("--json", action="store_true", help=f"{JSON}: folder by task")
    verb.set_defaults(run=_export)


def add_generate(verbs: Any) -> None:
    """Add `generate` to the command line."""
    verb = verbs.add_parser(
        "generate", help="answers of a trained run or an export", epilog=GENERATE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    verb.add_argument("where", metavar="RUN", help="folder of a run, checkpoint or export, or the YAML of a run")
    verb.add_argument("overrides", nargs="*", metavar="key=value", help="settings of the run, such as a moved model")
    verb.add_argument("--task", help="task of the prompts; rows of a file may name their own")
    verb.add_argument("--prompt", help="text to answer; the answer is written as it grows")
    verb.add_argument("--file", help="rows to answer, with or without answers; one JSON line each")
    verb.add_argument("--max-new-tokens", type=int, default=None, help="longest answer (max_new_tokens of the run)")
    verb.add_argument("--temperature", type=float, default=0.0, help="0: the likeliest token each time (0)")
    verb.add_argument("--top-p", type=float, default=1.0, help="share of probability that tokens are drawn from (1)")
    verb.add_argument("--num-beams", type=int, default=1, help="beams (1); with --file only")
    verb.add_argument("--batch-size", type=int, default=16, help="rows answered together (16)")
    verb.add_argument("--seed", type=int, default=0, help="of drawing (0)")
    verb.set_defaults(run=_generate)


def _export(options: argparse.Namespace) -> None:
    """Export and print the folder of every task."""
    from mtl_opt.deploy import ExportOptions, export
    from mtl_opt.deploy.export_keys import split_export_keys, with_export_keys

    asked, of_the_run = split_export_keys(options.where, options.overrides)
    wanted = None if options.task is None else tuple(options.task)
    bits = None if options.bits is None else one_of(4, 8)("--bits", options.bits)
    chosen = ExportOptions(None, wanted, options.adapter, options.dtype, options.dequantize, options.shard_size, bits)
    folders = export(options.where, with_export_keys(chosen, asked), of_the_run)
    if options.json:
        print_json({task: str(path) for task, path in folders.items()})
        return
    for task, path in folders.items():
        print(f"{task}: {path}")


def _generate(options: argparse.Namespace) -> None:
    """Stream the answer to one prompt, or print answers to rows as JSON lines."""
    from transformers import set_seed

    from mtl_opt.deploy import open_answering, prompt_row, read_prompts

    _check_generate(options)
    answering = open_answering(options.where, options.overrides)
    length = options.max_new_tokens or answering.trained.config.max_new_tokens
    drawn = {"do_sample": True, "temperature": options.temperature, "top_p": options.top_p}
    how = {"max_new_tokens": length, **(drawn if options.temperature > 0 else {})}
    set_seed(options.seed)
    if options.prompt is not None:
        task = answering.check_task(options.task)
        answering.stream(prompt_row(options.prompt), task, _print_piece, **how)
        print()
        return
    rows = read_prompts(options.file)
    tasks = [answering.check_task(row.task or options.task) for row in rows]
    beams = {"num_beams": options.num_beams} if options.num_beams > 1 else {}
    for place, answer in answering.answer(rows, tasks, batch_size=options.batch_size, **how, **beams):
        print_json(_answer_line(rows[place], place, tasks[place], answer))
        sys.stdout.flush()


def _check_generate(options: argparse.Namespace) -> None:
    """Refuse options that no answer can be generated with."""
    if (options.prompt is None) == (options.file is None):
        raise InputError("Give one of `--prompt TEXT` and `--file rows.jsonl`.")
    if options.prompt is not None and not options.prompt.strip():
        raise InputError("`--prompt` is empty; there is nothing to answer.")
    if options.prompt is not None and options.num_beams > 1:
        raise InputError("`--num-beams` goes with `--file`: beams cannot be written as they grow.")
    for name in ("max_new_tokens", "num_beams", "batch_size"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise InputError(f"`--{name.replace('_', '-')}` must be at least 1, got {value}.")
    if options.temperature < 0:
        raise InputError(f"`--temperature` must be at least 0, got {options.temperature}.")
    if not 0 < options.top_p <= 1:
        raise InputError(f"`--top-p` must be above 0 and at most 1, got {options.top_p}.")


def _answer_line(row: Any, place: int, task: str, answer: str) -> dict[str, Any]:
    """Build a line with the keys of LLaMA-Factory's `generated_predictions.jsonl`; no label where a row has none."""
    from mtl_opt.deploy.answer import UNKNOWN

    label = {} if row.output == UNKNOWN else {"label": row.output}
    return {"index": place, "task": task, "prompt": row.user_text, "predict": answer, **label}


def _print_piece(text: str) -> None:
    """Print a piece of an answer as it comes."""
    sys.stdout.write(text)
    sys.stdout.flush()
