"""The lookup from a row of the buffer to the rows of a layer's input, while `TaskGradients.rows` is open."""

from torch import Tensor

from mtl_opt.batch import Segments, current_task_rows, segments_of


class OpenSegments:
    """Find the segments of the innermost open `task_rows` context once for all layers that run in it.

    Args:
        num_rows: Number of rows of the buffer: one per task, or two where each task's rows are dealt to halves.
        halves: Whether they are.
    """

    def __init__(self, num_rows: int, halves: bool = False) -> None:
        self.num_rows = num_rows
        self.halves = halves
        self._known: dict[int, tuple[Tensor, Segments]] = {}  # by identity; the ids are held so that it stays theirs

    def register(self, ids: Tensor, segments: Segments) -> Segments:  # [batch] or [batch, seq]
        """Record the segments for layers that run under these ids."""
        self._known[id(ids)] = (ids, segments)
        return segments

    def current(self) -> Segments:
        """Return the segments for a layer that runs now."""
        ids = current_task_rows()
        assert ids is not None
        if id(ids) in self._known:
            return self._known[id(ids)][1]
        if self.halves:
            raise ValueError(
                "A module opened a context of its own for gathered rows, and halves cannot follow them; use a "
                "combiner that needs no halves."
            )
        return self.register(ids, segments_of(ids, self.num_rows))

    def forget(self) -> None:
        """Release the ids of a finished batch."""
        self._known.clear()
