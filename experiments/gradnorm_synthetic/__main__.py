"""`python -m experiments.gradnorm_synthetic [--quick] [--json]`."""

from experiments.command import run

if __name__ == "__main__":
    run("gradnorm_synthetic")
