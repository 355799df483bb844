"""`python -m experiments.support_desk [--quick] [--json]`."""

from experiments.command import run

if __name__ == "__main__":
    run("support_desk")
