"""Fonts for task names in any script. matplotlib's own knows no Chinese, so the installed ones are searched."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

OWN_FAMILY = "DejaVu Sans"
"""The font that matplotlib brings along."""

LAST_RESORT = "Last Resort"
"""Begins the name of a font that has a box for every character and a letter for none."""


@cache
def font_families(text: str) -> tuple[str, ...] | None:
    """Return the font families, first choice first, that can draw a text; None where no installed font can."""
    if not all(char.isspace() or char.isprintable() for char in text):
        return None
    from matplotlib import font_manager

    own = font_manager.get_font(font_manager.findfont(OWN_FAMILY))
    missing = {char for char in text if not char.isspace() and not own.get_char_index(ord(char))}
    if not missing:
        return (OWN_FAMILY,)
    for entry in installed_fonts():
        try:
            font = font_manager.get_font(entry.fname)
        except (OSError, RuntimeError):  # removed since matplotlib made its list, or broken
            continue
        if all(font.get_char_index(ord(char)) for char in missing):
            return (OWN_FAMILY, entry.name)
    return None


@cache
def installed_fonts() -> tuple[Any, ...]:
    """List the fonts of this system, best for labels first: regular, sans-serif, simplified Chinese."""
    from matplotlib import font_manager

    def rank(entry: Any) -> tuple[Any, ...]:
        name = entry.name
        regular = entry.style == "normal" and entry.weight in {400, "normal", "regular"}
        return not regular, "Serif" in name, "Mono" in name, "Sans" not in name, not name.endswith(" SC"), name

    known = [entry for entry in font_manager.fontManager.ttflist if not entry.name.startswith(LAST_RESORT)]
    return tuple(sorted(known, key=rank))


@contextmanager
def missing_glyphs_as_boxes() -> Iterator[None]:
    """Silence the warning on characters that no font has: each is drawn as a box, which is no reason to stop."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield
