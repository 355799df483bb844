"""Rounding of shares to rows."""

from hypothesis import given, settings
from hypothesis import strategies as st

from mtl_opt.data.mixing.quota import Quota


@settings(max_examples=200, deadline=None)
@given(weights=st.lists(st.floats(1e-4, 1), min_size=1, max_size=9), rows=st.integers(1, 40), draws=st.integers(1, 60))
def test_rounded_shares_are_never_a_whole_row_off(weights: list[float], rows: int, draws: int) -> None:
    shares = [weight / sum(weights) for weight in weights]
    quota, given_ = Quota(len(shares)), [0] * len(shares)
    for draw in range(1, draws + 1):
        counts = quota.take(shares, rows)
        assert sum(counts) == rows
        given_ = [a + b for a, b in zip(given_, counts, strict=True)]
        assert all(abs(g - s * rows * draw) < 1 for g, s in zip(given_, shares, strict=True))
