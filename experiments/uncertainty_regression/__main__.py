"""The command: `python -m experiments.uncertainty_regression [--quick] --json`."""

import sys

from experiments.command import main
from experiments.uncertainty_regression.measure import measure

if __name__ == "__main__":
    sys.exit(main(measure))
