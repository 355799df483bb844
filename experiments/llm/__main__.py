"""`python -m experiments.llm [--quick] [--json]`."""

from experiments.command import run

if __name__ == "__main__":
    run("llm")
