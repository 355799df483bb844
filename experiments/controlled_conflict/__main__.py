"""The command: `python -m experiments.controlled_conflict [--quick] --json`."""

import sys

from experiments.command import main
from experiments.controlled_conflict.measure import measure

if __name__ == "__main__":
    sys.exit(main(measure))
