"""`python -m experiments.toy_pareto [--quick] [--json]`."""

from experiments.command import run

if __name__ == "__main__":
    run("toy_pareto")
