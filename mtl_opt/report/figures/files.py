"""The figures of a report as PNG and PDF files for papers."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mtl_opt.errors import InputError
from mtl_opt.monitor.fonts import missing_glyphs_as_boxes
from mtl_opt.report.figures.over_methods import change_figure, score_figure, task_figure
from mtl_opt.report.figures.over_steps import cosine_figure, curve_figure, layer_figure, shadow_figure
from mtl_opt.report.figures.style import style

FOLDER = "plots"

FIGURES: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    "scores": score_figure, "tasks": task_figure, "changes": change_figure, "curves": curve_figure,
    "cosines": cosine_figure, "layers": layer_figure, "shadows": shadow_figure,
}  # fmt: skip
"""Name of the files → what draws the figure of a report's data; None where the data has nothing to draw."""


def write_plots(data: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draw every figure that the data allows."""
    import matplotlib

    written = []
    names = [*data["tasks"], *(method["label"] for method in data["methods"])]
    with matplotlib.rc_context(style(names)), missing_glyphs_as_boxes():
        for name, draw in FIGURES.items():
            figure = draw(data)
            if figure is not None:
                written += save_figure(figure, folder / FOLDER, name)
    return written


def save_figure(figure: Any, folder: Path, name: str) -> list[Path]:
    """Write a figure as PNG and PDF."""
    paths = [folder / f"{name}.png", folder / f"{name}.pdf"]
    try:
        folder.mkdir(exist_ok=True)
        for path in paths:
            # Without its date a PDF of the same data is the same file.
            metadata = {"CreationDate": None} if path.suffix == ".pdf" else None
            figure.savefig(path, dpi=200, bbox_inches="tight", metadata=metadata)
    except OSError as error:
        raise InputError(f"`{folder}` cannot be written ({error.strerror}).") from error
    return paths
