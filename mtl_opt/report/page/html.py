"""`report.html`: one file with style, program and data in it, which loads nothing and works from disk."""

import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from mtl_opt.errors import InputError
from mtl_opt.report.page.contents import contents
from mtl_opt.report.read.folder import read_folder

REPORT = "report.html"
SCRIPTS = (
    "texts", "core", "table", "charts", "verdict", "trade", "curves", "conflicts", "timeline", "shadows", "cost",
    "answers", "reproduce", "main",
)  # fmt: skip
"""Files of the page's program, in the order in which they are concatenated."""


def write_report(folder: Path) -> Path:
    """Write the report on a comparison or a run.

    An `InputError` says that there is nothing to report on, runs do not belong together, or the file cannot be written.
    """
    return write_page(contents(read_folder(folder)), folder)


def write_page(data: Mapping[str, Any], folder: Path) -> Path:
    """Write the page of gathered data."""
    text = page(data)
    path = folder / REPORT
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8", newline="\n")
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise InputError(f"`{path}` cannot be written ({error.strerror}).") from error
    return path


def page(data: Mapping[str, Any]) -> str:
    """Assemble the page."""
    parts = {
        "STYLE": page_file("style.css"),
        "SCRIPT": "\n".join(page_file(f"{name}.js") for name in SCRIPTS),
        "DATA": embedded(data),  # the last: nothing is looked for inside the data
    }
    text = page_file("page.html")
    for name, part in parts.items():
        text = text.replace(f"/*{name}*/", part, 1)
    return text


def page_file(name: str) -> str:
    """Read a file of the page."""
    return resources.files("mtl_opt.report.page").joinpath(name).read_text(encoding="utf-8")


def embedded(data: Mapping[str, Any]) -> str:
    r"""Write data so that it can stand inside a `script` element, whatever texts are in it.

    Examples:
        >>> embedded({"task": "</script>"})
        '{"task":"\\u003c/script\\u003e"}'
    """
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text.encode("utf-8", errors="replace").decode("utf-8")  # half a character, cut by a tokenizer
