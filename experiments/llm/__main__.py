"""The command: `python -m experiments.llm [--quick] --json`."""

import sys

from experiments.llm.measure import measure

from experiments.command import main

if __name__ == "__main__":
    sys.exit(main(measure))
