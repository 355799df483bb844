"""Which rows of a layer's input go to which row of the buffer, while `TaskGradients.rows` is open."""

from torch import Tensor

from mtl_opt.batch import Segments, current_task_rows, segments_of


class OpenSegments:
    """Give the segments of the innermost open `task_rows` context, found once for all layers that run in it.

    Args:
        num_rows: Number of rows of the buffer: one per task, or two where each task's rows are dealt to halves.
        halves: Whether they are.
    """

    def __init__(self, num_rows: int, halves: bool = False) -> None:
        self.num_rows = num_rows
        self.halves = halves
        self._known: dict[int, tuple[Tensor, Segments]] = {}  # by identity; the ids are held so that it stays theirs

    def announce(self, ids: Tensor, owners: Tensor) -> Segments:  # [batch] or [batch, seq]
        """Say which row of the buffer each row of the batch goes to, for layers that run under these ids."""
        return self.announce_again(ids, segments_of(owners, self.num_rows))

    def announce_again(self, ids: Tensor, segments: Segments) -> Segments:  # [batch] or [batch, seq]
        """Say it of rows that were open before."""
        self._known[id(ids)] = (ids, segments)
        return segments

    def current(self) -> Segments:
        """Find the rows of every task for a layer that runs now."""
        ids = current_task_rows()
        assert ids is not None
        if id(ids) in self._known:
            return self._known[id(ids)][1]
        if self.halves:
            raise ValueError(
                "A module opened a context of its own for gathered rows, and halves cannot follow them; use a "
                "combiner that needs no halves."
            )
        return self.announce(ids, ids)

    def forget(self) -> None:
        """Let go of the ids of a finished batch."""
        self._known.clear()
