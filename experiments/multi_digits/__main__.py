"""The command: `python -m experiments.multi_digits [--quick] --json`."""

import sys

from experiments.multi_digits.measure import measure

from experiments.command import main

if __name__ == "__main__":
    sys.exit(main(measure))
