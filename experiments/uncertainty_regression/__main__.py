"""`python -m experiments.uncertainty_regression [--quick] [--json]`."""

from experiments.command import run

if __name__ == "__main__":
    run("uncertainty_regression")
