"""Log messages that the runs of a comparison have in common: gradient engine, sharing, plan."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

details = logging.getLogger(__name__)
"""Logs what describes a run; what happens in it goes to the logger of the module where it happens."""


@contextmanager
def details_once() -> Iterator[None]:
    """Pass every message of `details` on once, whatever its arguments, however many runs log it."""
    seen: set[str] = set()

    def is_new(record: logging.LogRecord) -> bool:
        new = record.msg not in seen
        seen.add(record.msg)
        return new

    details.addFilter(is_new)
    try:
        yield
    finally:
        details.removeFilter(is_new)
