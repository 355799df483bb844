"""The command: `python -m experiments.toy_pareto [--quick] --json`."""

import sys

from experiments.command import main
from experiments.toy_pareto.sweep import measure

if __name__ == "__main__":
    sys.exit(main(measure))
