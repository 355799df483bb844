"""A clean Ctrl-C: the step under way is finished and saved, a second Ctrl-C stops at once."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupt:
    """Remember that the user asked to stop."""

    requested = False


@contextmanager
def finish_step_on_interrupt() -> Iterator[Interrupt]:
    """Turn the first SIGINT into a wish; outside the main thread signals are left alone."""
    wish = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield wish
        return

    def handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature of a handler
        wish.requested = True
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield wish
    finally:
        signal.signal(signal.SIGINT, before)
