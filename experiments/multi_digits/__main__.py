"""The command: `python -m experiments.multi_digits [--quick] --json`."""

import sys

from experiments.command import main
from experiments.multi_digits.measure import add_arguments, measure

if __name__ == "__main__":
    sys.exit(main(measure, add_arguments))
