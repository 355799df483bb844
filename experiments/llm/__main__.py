"""The command: `python -m experiments.llm [--quick] --json`."""

import sys

from experiments.command import main
from experiments.llm.measure import measure

if __name__ == "__main__":
    sys.exit(main(measure))
