"""`python -m experiments.controlled_conflict [--quick] [--json]`."""

from experiments.command import run

if __name__ == "__main__":
    run("controlled_conflict")
