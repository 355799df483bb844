"""A font that can draw a given text: Pillow's own knows ASCII and little more, so others are looked for."""

import os
from functools import cache
from io import BytesIO
from pathlib import Path

from PIL import ImageFont

FOLDERS = (
    "/usr/share/fonts",
    "/usr/local/share/fonts",
    "~/.local/share/fonts",
    "~/.fonts",
    "/System/Library/Fonts",
    "/Library/Fonts",
    "~/Library/Fonts",
    "C:/Windows/Fonts",
)
"""Where systems keep their fonts."""

# Starts of file names, best first: fonts with Chinese, then one with the other alphabets of Europe.
KNOWN_FONTS = (
    "NotoSansCJK", "NotoSansSC", "NotoSansHans", "SourceHanSans", "wqy-microhei", "wqy-zenhei", "PingFang", "Hiragino",
    "STHeiti", "msyh", "simhei", "DroidSansFallback", "Arial Unicode", "NotoSerifCJK", "SourceHanSerif", "DejaVuSans.",
)  # fmt: skip
UNUSED = "\uffff"  # never a character: every font draws its "missing glyph" for it


@cache
def known_font_files(folders: tuple[str, ...] = FOLDERS) -> tuple[Path, ...]:
    """Search the folders once for fonts that are known to cover much."""
    files = [path for folder in folders for path in Path(os.path.expanduser(folder)).rglob("*.[ot]t[fc]")]
    found = []
    for start in KNOWN_FONTS:
        matches = [path for path in files if path.name.lower().startswith(start.lower())]
        if matches:
            found.append(min(matches, key=lambda path: ("regular" not in path.name.lower(), str(path))))
    return tuple(found)


@cache
def default_font(size: int) -> ImageFont.FreeTypeFont:
    """Load Pillow's own font."""
    return ImageFont.load_default(size)


@cache
def load_font(path: Path, size: int) -> ImageFont.FreeTypeFont | None:
    """Load a font file."""
    try:  # the bytes, not the path: for a path that it cannot read Pillow takes a system font of the same name
        return ImageFont.truetype(BytesIO(path.read_bytes()), size)
    except OSError:
        return None


def can_draw(font: ImageFont.FreeTypeFont, text: str) -> bool:
    """Tell whether a font has a glyph for every character of a text."""
    # Pillow gives no access to a font's character map, so the pixels are compared.
    missing = glyph(font, UNUSED)
    return all(char.isspace() or (char.isprintable() and glyph(font, char) != missing) for char in set(text))


def glyph(font: ImageFont.FreeTypeFont, char: str) -> tuple[tuple[int, int], bytes]:
    """Draw one character."""
    mask = font.getmask(char)
    return mask.size, bytes(mask)


@cache
def font_for(text: str, size: int, folders: tuple[str, ...] = FOLDERS) -> ImageFont.FreeTypeFont | None:
    """Find a font that can draw a text: Pillow's own where it is enough, else one installed on the system."""
    if can_draw(default_font(size), text):
        return default_font(size)
    fonts = (load_font(path, size) for path in known_font_files(folders))
    return next((font for font in fonts if font is not None and can_draw(font, text)), None)
