"""The entry of the command line: parses the arguments, calls the verb, and turns errors into exit codes."""

import argparse
import io
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from importlib import metadata

from mtl_opt.cli.affinity import add_group, add_share
from mtl_opt.cli.catalogue import add_env, add_list
from mtl_opt.cli.compare import add_compare
from mtl_opt.cli.data import add_data
from mtl_opt.cli.deploy import add_export, add_generate
from mtl_opt.cli.parser import VerbParser
from mtl_opt.cli.report import add_predictions, add_report
from mtl_opt.cli.train import add_eval, add_plan, add_train
from mtl_opt.errors import InputError

EXAMPLES = """examples:
  mtl-opt compare                                  the embedded example: three tasks, five methods, two seeds
  mtl-opt train config.yaml combiner=pcgrad        one run; key=value, or --key value, wins over the file
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
    """Build the parser with all verbs; the keys of the configuration only where help is asked for."""
    parser = VerbParser(
        prog="mtl-opt",
        description="Fine-tune one language model on several tasks, and see and control how their gradients conflict.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"mtl-opt {metadata.version('mtl_opt')}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    add_train(verbs, with_keys)
    add_compare(verbs, with_keys)
    for add in (
        add_predictions, add_plan, add_eval, add_report, add_export, add_generate, add_share, add_group, add_data,
        add_list, add_env,
    ):  # fmt: skip
        add(verbs)
    return parser
