"""`mtl-opt share` and `group`: which blocks to share and which tasks to train together, from their gradients."""

import argparse
from typing import Any

from mtl_opt.cli.common import JSON, add_config, print_json, print_table, read_run_config

SHARE = """examples:
  mtl-opt share config.yaml                        make the most conflicting quarter of the blocks private
  mtl-opt share config.yaml --k 2 --threshold -0.05 output_dir=outputs/share
  mtl-opt share config.yaml --steps 200            measure the first 200 steps only

Two runs with the same seed, data order and steps, then a table per block and the metrics of both. A call that was
killed or stopped goes on where it was. In output_dir: layer_conflict.json, config.yaml (to run again), comparison.json.
"""
GROUP = """examples:
  mtl-opt group config.yaml                        from gradient cosines; the number of groups by the best criterion
  mtl-opt group config.yaml --by lookahead --groups 2

One run, then affinity.json, group-N.yaml for every group and selective.yaml (one model, an adapter per group).
"""


def add_share(verbs: Any) -> None:
    """Add `share` to the command line."""
    verb = verbs.add_parser(
        "share", help="make the most conflicting blocks private, retrain, compare", epilog=SHARE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add_config(verb)
    verb.add_argument("--json", action="store_true", help=JSON)
    verb.add_argument("--k", type=int, help="blocks to make private (a quarter of them)")
    verb.add_argument("--threshold", type=float, default=0.0, help="a cosine below this is a conflict (0)")
    verb.add_argument("--steps", type=int, help="steps to measure (all of the run)")
    verb.set_defaults(run=_share)


def add_group(verbs: Any) -> None:
    """Add `group` to the command line."""
    verb = verbs.add_parser(
        "group", help="which tasks go together, from their gradients", epilog=GROUP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add_config(verb)
    verb.add_argument("--json", action="store_true", help=JSON)
    verb.add_argument("--by", default="cosine", help="cosine or lookahead (cosine)")
    verb.add_argument("--groups", type=int, help="number of groups (the best)")
    verb.add_argument("--every", type=int, help="steps between two lookaheads (a twentieth of the run)")
    verb.set_defaults(run=_group)


def _share(options: argparse.Namespace) -> None:
    """Share by conflict and print both runs."""
    from mtl_opt.affinity import ShareOptions, share_by_conflict

    chosen = ShareOptions(options.k, options.threshold, options.steps)
    config = read_run_config(options)
    found = share_by_conflict(config, chosen)
    if options.json:
        print_json(found)
        return
    heads = ["block", "conflict rate", "mean cosine", "step rate", "step cosine", "parameters", "now"]
    keys = ("rate", "cosine", "step_rate", "step_cosine")
    rows = [
        [b["block"], *(f"{b[key]:.4f}" for key in keys), b["parameters"], "private" if b["private"] else "shared"]
        for b in found["blocks"]
    ]
    print_table(heads, rows)
    print(f"\nSeed {found['seed']} and {found['steps']['shared']} steps in both runs:")
    print_table(["", "shared", "selective"], _side_by_side(found))
    print(f"\nOne seed: a difference may be chance.\nTo run again: {config.output_dir}/config.yaml")


def _side_by_side(found: dict[str, Any]) -> list[list[Any]]:
    """Format the rows of a table with both runs side by side."""
    rows: list[list[Any]] = []
    for key, value in found["metrics"]["shared"].items():
        rows.append([key, f"{value:.4f}", f"{found['metrics']['selective'][key]:.4f}"])
    rates = [found["conflict_rate"][run] for run in ("shared", "selective")]
    rows.append(["conflict rate", *("-" if rate is None else f"{rate:.4f}" for rate in rates)])
    for key, value in found["parameters"]["shared"].items():
        rows.append([f"trained numbers, {key}", value, found["parameters"]["selective"][key]])
    return rows


def _group(options: argparse.Namespace) -> None:
    """Group tasks and print the affinity."""
    from mtl_opt.affinity import GroupOptions, group_tasks

    chosen = GroupOptions(options.by, options.groups, options.every)
    found = group_tasks(read_run_config(options), chosen)
    if options.json:
        print_json(found)
        return
    print(f"Affinity of the row's task to the column's ({found['measure']}):")
    cells = [["-" if value is None else f"{value:.4g}" for value in row] for row in found["affinity"]]
    print_table(["", *found["tasks"]], [[task, *row] for task, row in zip(found["tasks"], cells, strict=True)])
    print("\nGroups: " + "; ".join(", ".join(group) for group in found["groups"]))
    for path in found["configs"]:
        print(f"To run: mtl-opt train {path}")
