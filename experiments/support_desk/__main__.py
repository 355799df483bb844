"""The command: `python -m experiments.support_desk [--quick] --json`."""

import sys

from experiments.command import main
from experiments.support_desk.measure import measure

if __name__ == "__main__":
    sys.exit(main(measure))
