"""The cosines of all task gradients as a picture: red where tasks pull apart, blue where they agree."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from mtl_opt.monitor.fonts import default_font, font_for

Colour = tuple[int, int, int]

# ColorBrewer's RdBu, safe for colour-blind eyes. Cosines of real tasks are mostly small, so the steps are finer there.
LEVELS = (0.0, 0.1, 0.3, 0.6, 1.0)
RED: tuple[Colour, ...] = ((247, 247, 247), (253, 219, 199), (244, 165, 130), (214, 96, 77), (178, 24, 43))
BLUE: tuple[Colour, ...] = ((247, 247, 247), (209, 229, 240), (146, 197, 222), (67, 147, 195), (33, 102, 172))
GREY: Colour = (200, 200, 200)
BLACK: Colour = (30, 30, 30)
WHITE: Colour = (255, 255, 255)

CELL, PAD, GAP, FONT, LABEL = 46, 12, 7, 14, 150  # pixels; LABEL is the widest label
SWATCH_WIDTH, SWATCH_HEIGHT = 34, 18  # pixels
LAYER_TEXT = 24  # characters of the name of a layer


@dataclass(frozen=True)
class Label:
    """Hold what is drawn for a task: its name, or its number and as much of the name as fits and can be drawn."""

    text: str
    font: ImageFont.FreeTypeFont

    @property
    def width(self) -> int:
        """Width of the drawn text in pixels."""
        return round(self.font.getlength(self.text))


def task_number(index: int) -> str:
    """Give the short name of a task, the same in pictures and in TensorBoard's text `tasks`."""
    return f"T{index + 1}"


def task_label(index: int, name: str) -> Label:
    """Choose what to draw for a task."""
    font = font_for(name, FONT)
    if font is None or not name.strip():
        return Label(task_number(index), default_font(FONT))
    label, kept = Label(name, font), len(name)
    while label.width > LABEL:
        kept -= 1
        label = Label(f"{task_number(index)} {name[:kept].rstrip()}…", font)
    return label


def colour(cosine: float) -> Colour:
    """Map a cosine to its colour."""
    if cosine != cosine:
        return GREY
    stops = np.array(RED if cosine < 0 else BLUE, dtype=float)
    red, green, blue = (round(float(np.interp(abs(cosine), LEVELS, stops[:, channel]))) for channel in range(3))
    return red, green, blue


def draw_cell(
    draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], cosine: float, text: str, grey: bool = False
) -> None:
    """Draw one coloured box with its value, or a dash where there is none."""
    fill = GREY if grey else colour(cosine)
    ink = BLACK if 0.299 * fill[0] + 0.587 * fill[1] + 0.114 * fill[2] > 140 else WHITE
    draw.rectangle(box, fill=fill, outline=WHITE)
    x, y = (box[0] + box[2]) // 2, (box[1] + box[3]) // 2
    if cosine != cosine:  # Pillow's own font has no en dash
        draw.line((x - 4, y, x + 4, y), fill=ink)
    else:
        draw.text((x, y), text, fill=ink, font=default_font(FONT - 1), anchor="mm")


def draw_labels(image: Image.Image, rows: Sequence[Label], columns: Sequence[Label], corner: tuple[int, int]) -> None:
    """Write the labels beside the rows and above the columns."""
    draw, (left, top) = ImageDraw.Draw(image), corner
    for index, label in enumerate(rows):
        middle = top + index * CELL + CELL // 2
        draw.text((left - GAP, middle), label.text, fill=BLACK, font=label.font, anchor="rm")
    turned = runs_upwards(columns)
    for index, label in enumerate(columns):
        middle = left + index * CELL + CELL // 2
        if not turned:
            draw.text((middle, top - GAP - 3), label.text, fill=BLACK, font=label.font, anchor="ms")
            continue
        height = FONT + 8
        strip = Image.new("L", (label.width + 2, height))
        ImageDraw.Draw(strip).text((0, height // 2), label.text, fill=255, font=label.font, anchor="lm")
        strip = strip.rotate(90, expand=True)
        image.paste(BLACK, (middle - height // 2, top - GAP - strip.height), strip)


def runs_upwards(columns: Sequence[Label]) -> bool:
    """Tell whether the labels above the columns are turned."""
    return max(label.width for label in columns) > CELL - 6


def draw_legend(draw: ImageDraw.ImageDraw, top: int) -> None:
    """Draw the colour scale."""
    values = [-level for level in reversed(LEVELS[1:])] + list(LEVELS)
    for index, value in enumerate(values):
        x = PAD + index * SWATCH_WIDTH
        draw_cell(draw, (x, top, x + SWATCH_WIDTH, top + SWATCH_HEIGHT), value, f"{value:g}")
    right, bottom = PAD + len(values) * SWATCH_WIDTH, top + SWATCH_HEIGHT + 4
    draw.text((PAD, bottom), "conflict", fill=BLACK, font=default_font(FONT - 1), anchor="la")
    draw.text((right, bottom), "agreement", fill=BLACK, font=default_font(FONT - 1), anchor="ra")


def cosine_heatmap(
    cosines: Tensor,  # [tasks, tasks]
    tasks: Sequence[str],
    uncertain: Tensor | None = None,  # [tasks, tasks]
) -> Tensor:  # uint8 [3, height, width]
    """Draw the cosines of all pairs of task gradients.

    Args:
        cosines: Cosines in [-1, 1]; NaN where undefined. `[tasks, tasks]`
        tasks: Names of the tasks.
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
    """Draw the cosines of pairs of tasks layer by layer, the first layer above."""
    if cosines.shape != (len(layers), len(pairs)):
        raise ValueError(f"`cosines` must be [{len(layers)}, {len(pairs)}], got shape {tuple(cosines.shape)}.")
    rows = [Label(".".join(name.split(".")[-2:])[-LAYER_TEXT:], default_font(FONT)) for name in layers]
    columns = [Label(f"{task_number(a)} {task_number(b)}", default_font(FONT)) for a, b in pairs]
    return heatmap(cosines, rows, columns)


def heatmap(
    values: Tensor,  # [rows, columns]
    rows: Sequence[Label],
    columns: Sequence[Label],
    uncertain: Tensor | None = None,  # [rows, columns]
) -> Tensor:  # uint8 [3, height, width]
    """Draw a table of cosines."""
    doubts = (torch.zeros_like(values) if uncertain is None else uncertain).tolist()
    above = max(label.width for label in columns) if runs_upwards(columns) else FONT + 4
    left, top = PAD + max(label.width for label in rows) + GAP, PAD + above + GAP
    right, bottom = left + len(columns) * CELL, top + len(rows) * CELL + 2 * GAP
    width = PAD + max(right, PAD + (2 * len(LEVELS) - 1) * SWATCH_WIDTH)
    image = Image.new("RGB", (width, bottom + SWATCH_HEIGHT + FONT + 8 + PAD), WHITE)
    draw = ImageDraw.Draw(image)
    for row, numbers in enumerate(values.tolist()):
        for column, value in enumerate(numbers):
            x, y = left + column * CELL, top + row * CELL
            text, doubt = f"{value:.2f}".replace("-0.00", "0.00"), bool(doubts[row][column])
            draw_cell(draw, (x, y, x + CELL, y + CELL), value, f"({text})" if doubt else text, grey=doubt)
    draw_labels(image, rows, columns, (left, top))
    draw_legend(draw, bottom)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
