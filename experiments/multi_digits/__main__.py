"""`python -m experiments.multi_digits [--quick] [--json]`."""

from experiments.command import run

if __name__ == "__main__":
    run("multi_digits")
