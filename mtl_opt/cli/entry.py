"""The command line: `mtl-opt train | compare | report | share | group | export | generate | data | ...`."""

import argparse
import io
import json
import logging
import os
import platform
import sys
import warnings
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from mtl_opt.cli.affinity import add_share_verbs
from mtl_opt.cli.after import add_after_verbs
from mtl_opt.cli.catalogue import add_list_verb
from mtl_opt.cli.compare import add_compare_verbs
from mtl_opt.cli.data import SKIP, add_data_verbs, overrides_of
from mtl_opt.cli.report import add_report_verb
from mtl_opt.errors import InputError

EXAMPLES = """examples:
  mtl-opt compare                                  the embedded example: three tasks, five methods, two seeds
  mtl-opt train config.yaml combiner=pcgrad        one run; key=value wins over the file
  mtl-opt compare config.yaml seeds='[0, 1, 2]'    several methods, with single-task baselines
  mtl-opt report outputs/cmp                       report.html: who won, is it significant, where gradients conflict
  mtl-opt data stats config.yaml                   what the tasks look like; also validate, plan, show
  mtl-opt plan config.yaml quantization_bit=4      memory, steps and tokens of a run before it takes them
  mtl-opt eval outputs/run --json                  measure a finished run again from its files
  mtl-opt predictions outputs/cmp/sum-seed0 outputs/cmp/pcgrad-seed0 --different
  mtl-opt share config.yaml --k 2                  make the two most conflicting blocks private, retrain, compare
  mtl-opt group config.yaml                        which tasks go together, and configurations to run
  mtl-opt export outputs/run                       plain Hugging Face folders, one per task
  mtl-opt generate outputs/run --task qa --prompt "..."
  tensorboard --logdir outputs                     losses, weights and cosines of the task gradients
"""
PACKAGES = ("torch", "transformers", "peft", "accelerate", "bitsandbytes", "datasets", "numpy", "scipy", "tensorboard")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Arguments after the program's name; None: those of the process.

    Returns:
        Exit code: 0 done, 2 bad input (one sentence on stderr), 130 interrupted.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the terminal cannot show must not cost the results
            stream.reconfigure(errors="backslashreplace")
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = _parser(with_keys=bool({"-h", "--help"} & set(given)))
    options, late = parser.parse_known_args(given)
    if late:  # argparse takes no further key=value behind an option
        if not hasattr(options, "overrides") or any("=" not in word or word.startswith("-") for word in late):
            parser.error(f"unrecognized arguments: {' '.join(late)}")
        options.overrides += late
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    rank = os.environ.get("RANK", "0")  # among several processes one speaks
    logging.getLogger("mtl_opt").setLevel(logging.INFO if rank == "0" else logging.WARNING)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # warns of an optional kernel at import
    # peft asks transformers by a name that transformers is renaming; nothing a user could do about it.
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
    try:
        options.run(options)
    except InputError as error:
        who = f" (process {rank})" if rank != "0" else ""
        print(f"mtl-opt: error{who}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        print(f"mtl-opt: {str(error) or 'Stopped.'}", file=sys.stderr)
        return 130
    return 0


def _parser(with_keys: bool) -> argparse.ArgumentParser:
    """Describe all verbs; the keys of the configuration only when help is asked for: reading them takes seconds."""
    parser = argparse.ArgumentParser(
        prog="mtl-opt",
        description="Fine-tune one language model on several tasks, and see and control how their gradients conflict.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"mtl-opt {metadata.version('mtl_opt')}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    train = verbs.add_parser("train", help="train with one combiner", **_settings_help("train", with_keys))
    train.add_argument("config", help="YAML file")
    train.add_argument("overrides", nargs="*", metavar="key=value", help="settings that win over the file")
    train.add_argument("--skip_bad_rows", action="store_true", help=SKIP)
    train.set_defaults(run=_train)
    add_compare_verbs(verbs, **_settings_help("compare", with_keys))
    planning = verbs.add_parser("plan", help="memory, steps, tokens and gradient engine, without loading weights")
    planning.add_argument("config", help="YAML file")
    planning.add_argument("overrides", nargs="*", metavar="key=value", help="settings that win over the file")
    planning.add_argument("--json", action="store_true", help="one JSON object on stdout, sizes in bytes")
    planning.set_defaults(run=_plan)
    evaluate = verbs.add_parser("eval", help="measure a finished run again, from its files alone")
    evaluate.add_argument("output_dir", help="folder of the run")
    evaluate.add_argument("--json", action="store_true", help="one JSON object on stdout")
    evaluate.set_defaults(run=_eval)
    add_report_verb(verbs)
    add_after_verbs(verbs)
    add_share_verbs(verbs)
    add_data_verbs(verbs)
    add_list_verb(verbs)
    environment = verbs.add_parser("env", help="versions and hardware, for bug reports")
    environment.set_defaults(run=_env)
    return parser


def _settings_help(verb: str, with_keys: bool) -> dict[str, Any]:
    """List the keys of the configuration below a verb's help."""
    if not with_keys:
        return {}
    from dataclasses import MISSING, fields

    from mtl_opt.training.config.comparison_keys import ONE_RUN_KEYS, CompareConfig
    from mtl_opt.training.config.run_config import TrainConfig

    specs = {spec.name: spec for spec in fields(TrainConfig)}
    if verb == "compare":
        one_run = {name: spec for name, spec in specs.items() if name not in ONE_RUN_KEYS}
        specs = one_run | {spec.name: spec for spec in fields(CompareConfig)}
    lines = ["keys of the configuration (default):"]
    for spec in specs.values():
        default = spec.default if spec.default_factory is MISSING else spec.default_factory()
        lines.append(f"  {spec.name:30} {spec.metadata['text']} ({default})")
    return {"epilog": "\n".join(lines), "formatter_class": argparse.RawDescriptionHelpFormatter}


def _train(options: argparse.Namespace) -> None:
    """Train once and print the results."""
    from mtl_opt.training import read_yaml, train, train_config

    config = train_config(read_yaml(options.config, overrides_of(options)))
    results = train(config)
    if os.environ.get("RANK", "0") != "0":
        return
    _print_metrics(results)
    print(f"\nResults and adapter: {config.output_dir}")
    print(f"Curves and cosines:  tensorboard --logdir {config.output_dir}")


def _plan(options: argparse.Namespace) -> None:
    """Say what a run would take."""
    from mtl_opt.training import read_yaml, train_config
    from mtl_opt.training.preview.plan import plan_run, plan_text

    found = plan_run(train_config(read_yaml(options.config, options.overrides)))
    print(json.dumps(found.to_json(), ensure_ascii=False) if options.json else plan_text(found))


def _eval(options: argparse.Namespace) -> None:
    """Measure a finished run from its files."""
    from mtl_opt.training.run.measurement import evaluate_folder

    results = evaluate_folder(Path(options.output_dir))
    if options.json:
        print(json.dumps(results, ensure_ascii=False))
    else:
        _print_metrics(results)


def _env(options: argparse.Namespace) -> None:  # noqa: ARG001 - every verb takes its options
    """Print what a bug report needs."""
    import torch

    print(f"mtl_opt       {metadata.version('mtl_opt')}")
    print(f"python        {platform.python_version()}")
    print(f"platform      {platform.platform()}")
    for package in PACKAGES:
        try:
            print(f"{package:14}{metadata.version(package)}")
        except metadata.PackageNotFoundError:
            print(f"{package:14}not installed")
    print(f"threads       {torch.get_num_threads()}")
    for index in range(torch.cuda.device_count()):
        print(f"gpu {index}         {torch.cuda.get_device_name(index)}")
    if not torch.cuda.is_available():
        print("gpu           none")


def _print_metrics(results: dict[str, Any]) -> None:
    """Print the metrics of every task, after training and, where known, before."""
    for key, value in results.items():
        if key.startswith("eval_"):
            before = results.get(f"before_{key}")
            print(f"{key:40} {value:.4f}" + (f"   (before {before:.4f})" if before is not None else ""))


if __name__ == "__main__":
    sys.exit(main())
