"""Tables of tokens, and views of their rows."""

import numpy as np
import pytest

from mtl_opt.data.store.tables import TokenTable, TokenView, View
from mtl_opt.data.text.tokens import Tokens

ROWS = [Tokens([1, 2, 3], (1, 3)), Tokens([4], (), shortened=True), Tokens([5, 6], (0, 1, 1, 2), True, True)]


@pytest.mark.parametrize("largest", [2**16 - 1, 2**16])
def test_a_table_gives_the_rows_back_whatever_their_ids(largest: int) -> None:
    rows = [*ROWS, Tokens([largest], ())]
    table = TokenTable.from_chunks([rows[:2], rows[2:]])
    assert [table[i] for i in range(len(table))] == [tokens.row() for tokens in rows]
    assert table.lengths.tolist() == [3, 1, 2, 1]


def test_a_table_may_be_empty() -> None:
    assert len(TokenTable.from_chunks([])) == len(TokenTable.from_chunks([[]])) == 0


def test_a_view_reads_its_parts_as_one_sequence() -> None:
    view = View[str]([("abc", np.array([2, 0])), ("xyz", np.array([], dtype=int)), ("uvw", np.array([1]))])
    assert list(view) == view[:] == [view[i] for i in range(3)] == ["c", "a", "v"]
    assert view[-1] == "v"
    assert list(view.pick(np.array([0, 2]))) == ["c", "v"]
    with pytest.raises(IndexError):
        view[3]


def test_a_view_of_tokens_counts_what_was_truncated() -> None:
    view = TokenView([(TokenTable.from_chunks([ROWS]), np.array([2, 1]))])
    assert (view.num_shortened, view.num_answers_cut, view.largest_id) == (2, 1, 6)
    assert view.lengths.tolist() == [2, 1]
