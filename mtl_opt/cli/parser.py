"""The parser of verbs: takes settings as `--key value` beside `key=value`, wherever they stand."""

import argparse
import re
from collections.abc import Iterator, Sequence
from typing import Any

from typing_extensions import override

SETTING = re.compile(r"[^\W\d][\w.]*=", re.UNICODE)
"""How an argument `key=value` begins."""


class VerbParser(argparse.ArgumentParser):
    """Read `--key value`, `--key=value` and `--key` as `key=value`, for verbs that take settings."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.own: set[str] = set()
        self.takes_settings = False
        super().__init__(*args, **kwargs)

    @override
    def add_argument(self, *names: Any, **kwargs: Any) -> argparse.Action:
        action = super().add_argument(*names, **kwargs)
        self.own.update(action.option_strings)
        self.takes_settings |= action.dest == "overrides"
        return action

    @override
    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self.takes_settings and args is not None:
            args = list(self.as_settings(args))
        return super().parse_known_args(args, namespace)

    def as_settings(self, words: Sequence[str]) -> Iterator[str]:
        """Yield the words, with every option that is no option of the verb as `key=value` at the end."""
        settings: list[str] = []
        left = list(words)
        while left:
            word = left.pop(0)
            name, sign, value = word.partition("=")
            if not name.startswith("--") or name == "--" or name in self.own:
                yield word
            elif name.replace("_", "-") in self.own:
                yield name.replace("_", "-") + sign + value
            else:
                key = name[2:] if "." in name else name[2:].replace("-", "_")
                if not sign:
                    value = left.pop(0) if left and is_value(left[0]) else "true"
                settings.append(f"{key}={value}")
        yield from settings


def is_value(word: str) -> bool:
    """Tell whether a word behind `--key` is its value, not the next setting."""
    return not word.startswith("--") and SETTING.match(word) is None
