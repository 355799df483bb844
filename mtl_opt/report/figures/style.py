"""What all figures of a report share: fonts, colours, heatmaps."""

from collections.abc import Mapping, Sequence
from typing import Any

from mtl_opt.monitor.fonts import known_font_files

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#c0669b", "#c98a00", "#3fa0d6", "#7a5fb5", "#7d6b4f")
DASHES = ("-", "--", ":", "-.")
SINGLE_COLOUR = "#6b6b6b"

Data = Mapping[str, Any]


def style(texts: str) -> dict[str, Any]:
    """Choose how figures look."""
    families = ["DejaVu Sans"]
    if not texts.isascii():
        from matplotlib import font_manager

        wanted = {ord(char) for char in texts if char.isprintable()}
        for path in known_font_files():
            if wanted <= set(font_manager.get_font(path).get_charmap()):
                font_manager.fontManager.addfont(path)
                families.append(font_manager.FontProperties(fname=path).get_name())
                break
    return {
        "backend": "agg", "font.family": families, "font.size": 9, "axes.spines.top": False,
        "axes.spines.right": False, "axes.unicode_minus": True, "pdf.fonttype": 42, "figure.dpi": 100,
        "axes.grid": True, "grid.alpha": 0.3, "grid.linewidth": 0.6, "legend.frameon": False, "text.parse_math": False,
    }  # fmt: skip


def short(name: str, most: int = 24) -> str:
    """Shorten a name so that labels do not run into each other."""
    return name if len(name) <= most else f"{name[: most - 1]}…"


def looks(data: Data) -> dict[str, dict[str, Any]]:
    """Give every method its colour and dashes, the same as on the page."""
    trained = [method["name"] for method in data["methods"] if method["role"] == "method"]
    found = {
        name: {"color": COLOURS[i % 8], "linestyle": DASHES[i // 8 % 4], "label": short(name)}
        for i, name in enumerate(trained)
    }
    single = {
        m["name"]: {"color": SINGLE_COLOUR, "linestyle": (0, (3, 3)), "label": short(m["name"])}
        for m in data["methods"]
    }
    return {**single, **found}


def heatmap(
    rows: Sequence[Sequence[float | None]], names: Sequence[str], columns: Sequence[str], limit: float, label: str,
    text: str | None,
) -> Any:  # fmt: skip
    """Draw a matrix, blue above and vermilion below zero."""
    import numpy as np
    from matplotlib import colors, pyplot

    blend = colors.LinearSegmentedColormap.from_list("conflict", ["#d1572a", "#ffffff", "#1f77b4"])
    matrix = np.array([[np.nan if v is None else v for v in row] for row in rows], dtype=float)
    wide = 0.75 if text else 0.16
    figure, axis = pyplot.subplots(figsize=(2.6 + wide * len(columns), 1 + (0.28 if text else 0.16) * len(names)))
    image = axis.imshow(matrix, cmap=blend, vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
    every = 1 if text else max(1, len(columns) // 8)
    axis.set_xticks(
        range(0, len(columns), every),
        [short(name, 20) for name in columns[::every]],
        rotation=30 if text else 0,
        ha="right" if text else "center",
    )
    axis.set_yticks(range(len(names)), [short(name, 40) for name in names])
    axis.grid(False)
    for (i, j), value in np.ndenumerate(matrix):
        if text and not np.isnan(value):
            strong = abs(value) > 0.65 * limit
            axis.text(
                j, i, text.format(value), ha="center", va="center", fontsize=7, color="white" if strong else "black"
            )
    figure.colorbar(image, ax=axis, label=label, shrink=0.9)
    return figure
