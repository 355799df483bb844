"""`python -m experiments.t0_tasks [--quick] [--json]`."""

from experiments.command import run

if __name__ == "__main__":
    run("t0_tasks")
