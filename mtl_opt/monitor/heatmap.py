"""The cosines of task gradients as a picture: red where tasks pull apart, blue where they agree.

matplotlib is imported where something is drawn: it takes as long to load as the rest of this package.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mtl_opt.monitor.fonts import OWN_FAMILY, font_families

# ColorBrewer's RdBu, safe for colour-blind eyes. Cosines of real tasks are mostly small, so the steps are finer there.
LEVELS = {
    -1.0: "#b2182b", -0.6: "#d6604d", -0.3: "#f4a582", -0.1: "#fddbc7", 0.0: "#f7f7f7",
    0.1: "#d1e5f0", 0.3: "#92c5de", 0.6: "#4393c3", 1.0: "#2166ac",
}  # fmt: skip
GREY, BLACK, WHITE = "#c8c8c8", "#1e1e1e", "#ffffff"

CELL, PAD, GAP, FONT, LABEL = 46, 12, 7, 14, 150  # pixels; LABEL is the widest label
SWATCH_WIDTH, SWATCH_HEIGHT = 34, 18  # pixels
LAYER_TEXT = 24  # characters of the name of a layer


class Outline(NamedTuple):
    """Hold the shape of a text as matplotlib's paths have it, in pixels; its baseline begins at (0, 0)."""

    vertices: np.ndarray  # [points, 2]
    codes: Any
    width: float


@lru_cache(maxsize=4096)
def text_outline(text: str, size: int, families: tuple[str, ...] = (OWN_FAMILY,)) -> Outline:
    """Compute the shape of a text."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    points, codes = text_to_path.get_text_path(FontProperties(family=list(families)), text)
    vertices = np.asarray(points, dtype=float).reshape(-1, 2) * size / text_to_path.FONT_SCALE
    return Outline(vertices, codes, vertices[:, 0].max(initial=0.0))


@dataclass(frozen=True)
class Label:
    """Hold what is drawn for a task: its name, or its number and as much of the name as fits and can be drawn."""

    text: str
    families: tuple[str, ...] = (OWN_FAMILY,)

    @property
    def outline(self) -> Outline:
        """Shape of the text."""
        return text_outline(self.text, FONT, self.families)

    @property
    def width(self) -> int:
        """Width of the drawn text in pixels."""
        return round(self.outline.width)


def task_number(index: int) -> str:
    """Return the short name of a task, the same in pictures and in TensorBoard's text `tasks`."""
    return f"T{index + 1}"


def task_label(index: int, name: str) -> Label:
    """Choose what to draw for a task."""
    shown = " ".join(name.split())
    families = font_families(shown)
    if families is None or not shown:
        return Label(task_number(index))
    label, kept = Label(shown, families), len(shown)
    while label.width > LABEL:
        kept -= 1
        label = Label(f"{task_number(index)} {shown[:kept].rstrip()}…", families)
    return label


def cosine_heatmap(
    cosines: Tensor,  # [tasks, tasks]
    tasks: Sequence[str],
    uncertain: Tensor | None = None,  # [tasks, tasks]
) -> Tensor:  # uint8 [3, height, width]
    """Draw the cosines of all pairs of task gradients.

    Args:
        cosines: Cosines in [-1, 1]; NaN where undefined. `[tasks, tasks]`
        tasks: Names of the tasks; a long one is shortened, one that no installed font can draw becomes its number.
        uncertain: Pairs whose sign is not known: their numbers stand in brackets on grey. None: no pair.
            `[tasks, tasks]`

    Returns:
        The picture as uint8. `[3, height, width]`

    Raises:
        ValueError: Where the shape does not fit the number of tasks.
    """
    num_tasks = len(tasks)
    if cosines.shape != (num_tasks, num_tasks):
        raise ValueError(f"`cosines` must be [{num_tasks}, {num_tasks}], got shape {tuple(cosines.shape)}.")
    labels = [task_label(index, name) for index, name in enumerate(tasks)]
    return heatmap(cosines, labels, labels, uncertain)


def layer_heatmap(
    cosines: Tensor,  # [layers, pairs]
    layers: Sequence[str],
    pairs: Sequence[tuple[int, int]],
) -> Tensor:  # uint8 [3, height, width]
    """Draw the cosines of pairs of tasks layer by layer, the first layer on top."""
    if cosines.shape != (len(layers), len(pairs)):
        raise ValueError(f"`cosines` must be [{len(layers)}, {len(pairs)}], got shape {tuple(cosines.shape)}.")
    rows = [Label(".".join(name.split(".")[-2:])[-LAYER_TEXT:]) for name in layers]
    columns = [Label(f"{task_number(a)} {task_number(b)}") for a, b in pairs]
    return heatmap(cosines, rows, columns)


def heatmap(
    values: Tensor,  # [rows, columns]
    rows: Sequence[Label],
    columns: Sequence[Label],
    uncertain: Tensor | None = None,  # [rows, columns]
) -> Tensor:  # uint8 [3, height, width]
    """Draw a table of cosines with its labels and the colour scale."""
    turned = max(label.width for label in columns) > CELL - 6
    above = max(label.width for label in columns) if turned else FONT + 4
    left, top = PAD + max(label.width for label in rows) + GAP, PAD + above + GAP
    right, bottom = left + len(columns) * CELL, top + len(rows) * CELL + 2 * GAP
    scale_right = PAD + len(LEVELS) * SWATCH_WIDTH
    canvas = Canvas(PAD + max(right, scale_right), bottom + SWATCH_HEIGHT + FONT + 8 + PAD)
    doubts = np.zeros(values.shape, dtype=bool) if uncertain is None else uncertain.bool().numpy()
    texts = [[cell_text(value, doubt) for value, doubt in zip(*row, strict=True)]
             for row in zip(values.tolist(), doubts, strict=True)]  # fmt: skip
    canvas.add_cells(np.where(doubts, np.nan, values.numpy()), texts, (left, top), (CELL, CELL))
    for index, label in enumerate(rows):
        canvas.add_text(label.outline, left - GAP, top + (index + 0.5) * CELL, align=1)
    for index, label in enumerate(columns):
        middle = left + (index + 0.5) * CELL
        if turned:
            canvas.add_text(label.outline, middle, top - GAP, align=0, turned=True)
        else:
            canvas.add_text(label.outline, middle, top - GAP - FONT / 2, align=0.5)
    levels = np.array([list(LEVELS)])
    canvas.add_cells(levels, [[f"{level:g}" for level in LEVELS]], (PAD, bottom), (SWATCH_WIDTH, SWATCH_HEIGHT))
    below = bottom + SWATCH_HEIGHT + 4 + FONT / 2
    canvas.add_text(text_outline("conflict", FONT - 1), PAD, below, align=0)
    canvas.add_text(text_outline("agreement", FONT - 1), scale_right, below, align=1)
    return canvas.picture()


def cell_text(value: float, doubt: bool) -> str:
    """Format a cosine: a dash where it is undefined, in brackets where its sign is not known."""
    if value != value:
        return "–"
    text = f"{value:.2f}".replace("-0.00", "0.00")
    return f"({text})" if doubt else text


@cache
def colour_map() -> Any:
    """Return the colours of cosines as a matplotlib colour map over [0, 1]."""
    from matplotlib.colors import LinearSegmentedColormap

    stops = [((level + 1) / 2, colour) for level, colour in LEVELS.items()]
    return LinearSegmentedColormap.from_list("cosines", stops, N=2001).with_extremes(bad=GREY)


def colours(
    cosines: np.ndarray,  # [...]
) -> np.ndarray:  # uint8 [..., 3]
    """Map cosines to their colours, NaN to grey."""
    return colour_map()((np.asarray(cosines, dtype=np.float64) + 1) / 2, bytes=True)[..., :3]


class Canvas:
    """Compose a picture of coloured cells and texts; coordinates are pixels from the upper left corner.

    A thousand numbers as matplotlib's `Text` take seconds. Outlines are computed once per text and drawn all together.
    """

    def __init__(self, width: int, height: int) -> None:
        self.pixels = np.full((height, width, 3), 255, dtype=np.uint8)
        self.outlines: list[Any] = []
        self.inks: list[str] = []

    def add_cells(
        self,
        values: np.ndarray,  # [rows, columns]
        texts: Sequence[Sequence[str]],
        corner: tuple[int, int],
        size: tuple[int, int],
    ) -> None:
        """Draw boxes in the colours of their values, each with its text."""
        (left, top), (width, height) = corner, size
        shades = colours(values)  # [rows, columns, 3]
        boxes = shades.repeat(height, axis=0).repeat(width, axis=1)
        boxes[::height], boxes[:, ::width] = 255, 255  # white lines between them
        self.pixels[top : top + boxes.shape[0], left : left + boxes.shape[1]] = boxes
        brightness = shades @ np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
        for (row, column), light in np.ndenumerate(brightness):
            x, y = left + (column + 0.5) * width, top + (row + 0.5) * height
            ink = BLACK if light > 140 else WHITE
            self.add_text(text_outline(texts[row][column], FONT - 1), x, y, align=0.5, ink=ink)

    def add_text(
        self, outline: Outline, x: float, y: float, align: float, turned: bool = False, ink: str = BLACK
    ) -> None:
        """Draw a text whose left end (`align` 0), middle (0.5) or right end (1) is at (x, y), upwards if `turned`."""
        from matplotlib.path import Path

        # Centred on the capitals, so that texts with and without descenders share a baseline.
        vertices = outline.vertices - (align * outline.width, 0.36 * FONT)
        if turned:
            vertices = vertices @ np.array([[0.0, 1.0], [-1.0, 0.0]])
        start = np.array([x, self.pixels.shape[0] - y])  # matplotlib's y goes up
        self.outlines.append(Path(vertices + start, outline.codes))
        self.inks.append(ink)

    def picture(self) -> Tensor:  # uint8 [3, height, width]
        """Draw everything."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.collections import PathCollection
        from matplotlib.figure import Figure
        from matplotlib.transforms import IdentityTransform

        height, width, _ = self.pixels.shape
        canvas = FigureCanvasAgg(Figure(figsize=(width, height), dpi=1))  # an inch is a pixel: sizes stay whole numbers
        renderer = canvas.get_renderer()
        drawn = np.asarray(renderer.buffer_rgba())  # [height, width, 4], the memory that is drawn to
        drawn[..., :3], drawn[..., 3] = self.pixels, 255
        texts = PathCollection(self.outlines, facecolors=self.inks, linewidths=0, transform=IdentityTransform())
        canvas.figure.add_artist(texts)
        texts.draw(renderer)
        return torch.from_numpy(drawn[..., :3].transpose(2, 0, 1).copy())
