"""Where does each method's claim hold, and where does it fail, when conflict is set by knobs?

Two quadratic tasks of known angle, norm ratio, curvature and gradient noise. Each row of `claims.py` predicts where a
method wins or loses; a verdict says whether the prediction held, for every seed. Predictions that fail stay in.
"""

import argparse
from collections.abc import Mapping
from typing import Any

from experiments.command import in_processes
from experiments.controlled_conflict.claims import CLAIMS


def judge(place: int, seed: int) -> tuple[bool, dict[str, float]]:
    """Test a claim."""
    return CLAIMS[place].test(seed)


def measure(options: argparse.Namespace) -> Mapping[str, Any]:
    """Test every claim."""
    seeds = [options.seed + i for i in range(1 if options.quick else 5)]
    calls = [(place, seed) for place in reversed(range(len(CLAIMS))) for seed in seeds]  # those under noise first
    answers = dict(zip(calls, in_processes(options.jobs, judge, calls, "claims × seeds"), strict=True))
    table = []
    for place, claim in enumerate(CLAIMS):
        found = [answers[place, seed] for seed in seeds]
        numbers = {name: [each[name] for _, each in found] for name in found[0][1]}
        holds = all(held for held, _ in found)
        table.append(
            {"method": claim.method, "expected": claim.expected, "prediction": claim.prediction, "holds": holds}
            | {"numbers": numbers}
        )
    return {"verdicts": {row["prediction"]: row["holds"] for row in table}, "claims": table}
