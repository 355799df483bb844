"""`python -m experiments.two_languages [--quick] [--json]`."""

from experiments.command import run

if __name__ == "__main__":
    run("two_languages")
