"""The command: `python -m experiments.text_tasks [--quick] --json`."""

import sys

from experiments.command import main
from experiments.text_tasks.sweep import add_arguments, measure

if __name__ == "__main__":
    sys.exit(main(measure, add_arguments))
