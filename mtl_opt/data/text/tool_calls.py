"""Tool calls within the text of an answer: one or several JSON values, lists of calls too, after a text or without."""

import contextlib
import json
from collections.abc import Mapping
from typing import Any


def split_calls(text: str) -> tuple[str, list[dict[str, Any]]]:
    """Split an answer into its text and the calls at its end; no calls where there are none that can be read."""
    lines = text.splitlines(keepends=True)
    for number, line in enumerate(lines):
        if line.lstrip()[:1] in {"{", "["}:
            calls = parse_calls("".join(lines[number:]))
            if calls:
                return "".join(lines[:number]).strip(), calls
    return text, []


def parse_calls(text: str) -> list[dict[str, Any]]:
    """Read a text that consists of calls; empty where anything else is in it."""
    decoder, place, found = json.JSONDecoder(), 0, list[dict[str, Any]]()
    text = text.strip()
    while place < len(text):
        try:
            value, place = decoder.raw_decode(text, place)
        except ValueError:
            return []
        for one in value if isinstance(value, list) else [value]:
            call = _call(one)
            if call is None:
                return []
            found.append(call)
        while place < len(text) and text[place] in " \t\r\n,;":
            place += 1
    return found


def _call(value: Any) -> dict[str, Any] | None:
    """Read one call, with arguments as an object where their text is JSON; None where it is no call."""
    if isinstance(value, Mapping) and isinstance(value.get("function"), Mapping):
        value = value["function"]
    if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
        return None
    arguments = value.get("arguments", value.get("parameters", {}))
    if isinstance(arguments, str):
        with contextlib.suppress(ValueError):  # arguments that are not JSON stay text
            arguments = json.loads(arguments)
    return {"name": value["name"], "arguments": arguments}
