"""The command: `python -m experiments.gradnorm_synthetic [--quick] --json`."""

import sys

from experiments.command import main
from experiments.gradnorm_synthetic.measure import measure

if __name__ == "__main__":
    sys.exit(main(measure))
