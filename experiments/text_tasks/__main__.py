"""`python -m experiments.text_tasks [--quick] [--json]`."""

from experiments.command import run

if __name__ == "__main__":
    run("text_tasks")
