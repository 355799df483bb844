"""What all figures of a report share: fonts, colours, panels, matrices.

matplotlib is imported where something is drawn: it takes as long to load as the rest of this package.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mtl_opt.monitor.fonts import OWN_FAMILY, font_families

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#c0669b", "#c98a00", "#3fa0d6", "#7a5fb5", "#7d6b4f")
DASHES = ("-", "--", ":", "-.")
SINGLE_COLOUR = "#6b6b6b"


def style(names: Iterable[str]) -> dict[str, Any]:
    """Return matplotlib's settings for figures with these names in them."""
    families = dict.fromkeys(family for name in names for family in font_families(name) or ())
    return {
        "font.family": [OWN_FAMILY, *(family for family in families if family != OWN_FAMILY)], "font.size": 9,
        "axes.spines.top": False, "axes.spines.right": False, "axes.unicode_minus": True, "pdf.fonttype": 42,
        "figure.dpi": 100, "axes.grid": True, "grid.alpha": 0.3, "grid.linewidth": 0.6, "legend.frameon": False,
        "text.parse_math": False,
    }  # fmt: skip


def truncate(name: str, most: int = 24) -> str:
    """Shorten a name so that labels do not run into each other."""
    return name if len(name) <= most else f"{name[: most - 1]}…"


def line_styles(data: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return colour, dashes and label of every method, the same as on the page."""
    single = {
        method["name"]: {"color": SINGLE_COLOUR, "linestyle": (0, (3, 3)), "label": truncate(method["name"])}
        for method in data["methods"]
    }
    trained = [method["name"] for method in data["methods"] if method["role"] == "method"]
    found = {
        name: {"color": COLOURS[i % 8], "linestyle": DASHES[i // 8 % 4], "label": truncate(name)}
        for i, name in enumerate(trained)
    }
    return {**single, **found}


def new_figure(width: float, height: float) -> tuple[Any, Any]:
    """Make a figure with one axes, size in inches; without pyplot nothing has to be closed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    return figure, figure.subplots()


def panels(count: int, height: float, sharey: bool = False) -> tuple[Any, list[Any]]:
    """Make a figure with panels of a height in inches, three in a row."""
    from matplotlib.figure import Figure

    columns = min(3, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(3.1 * columns, height * rows))
    axes = list(figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=sharey).flat)
    for axis in axes[count:]:
        axis.remove()
    return figure, axes[:count]


def matrix_figure(
    rows: Sequence[Sequence[float | None]], names: Sequence[str], columns: Sequence[str], limit: float, label: str,
    cell_format: str | None,
) -> Any:  # fmt: skip
    """Draw a matrix, blue above and vermilion below zero, with its numbers where they have a format."""
    import numpy as np
    from matplotlib.colors import LinearSegmentedColormap

    blend = LinearSegmentedColormap.from_list("conflict", ["#d1572a", "#ffffff", "#1f77b4"])
    matrix = np.array([[np.nan if v is None else v for v in row] for row in rows], dtype=float)
    wide, high = (0.75, 0.28) if cell_format else (0.16, 0.16)
    figure, axis = new_figure(2.6 + wide * len(columns), 1 + high * len(names))
    image = axis.imshow(matrix, cmap=blend, vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
    every = 1 if cell_format else max(1, len(columns) // 8)
    rotation, align = (30, "right") if cell_format else (0, "center")
    heads = [truncate(name, 20) for name in columns[::every]]
    axis.set_xticks(range(0, len(columns), every), heads, rotation=rotation, ha=align)
    axis.set_yticks(range(len(names)), [truncate(name, 40) for name in names])
    axis.grid(False)
    for (i, j), value in np.ndenumerate(matrix):
        if cell_format and not np.isnan(value):
            ink = "white" if abs(value) > 0.65 * limit else "black"
            axis.text(j, i, cell_format.format(value), ha="center", va="center", fontsize=7, color=ink)
    figure.colorbar(image, ax=axis, label=label, shrink=0.9)
    return figure
