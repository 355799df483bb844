"""`python -m experiments.many_tasks [--quick] [--json]`."""

from experiments.command import run

if __name__ == "__main__":
    run("many_tasks")
