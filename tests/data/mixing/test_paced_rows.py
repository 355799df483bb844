"""A curriculum of rows: what is open, what is delivered, and that a state gives the very same draws."""

import re

import numpy as np
import pytest

from mtl_opt.data.mixing import MIXINGS, Facts, PacedRows, RowPacing, Sampler, build_mixer, split_row_pacing
from mtl_opt.errors import InputError, UnknownNameError

SIZES = {"qa": 100, "摘要": 37, "anger": 3}
SCORES = {task: np.random.default_rng(len(task)).permutation(size) for task, size in SIZES.items()}
RATIOS = {"qa": 0.5, "摘要": 0.3, "anger": 0.2}
ARGUMENTS = {"ratio_schedule": {"points": [[0, RATIOS], [1, dict.fromkeys(SIZES, 1 / 3)]]}}


def sampler(order="easy_first", steps=60, mixing="balanced", rows=2, **pacing) -> Sampler:
    how = RowPacing("length", order, **pacing)
    orders = {task: PacedRows(task, size, 3, how, steps, SCORES[task]) for task, size in SIZES.items()}
    ratios = RATIOS if mixing == "ratios" else {}
    facts = Facts(SIZES, steps, 6, 3, dict.fromkeys(SIZES, 5.0), ratios)
    mixer = build_mixer(mixing, facts, ARGUMENTS.get(mixing, {}))
    return Sampler(SIZES, rows, 3, mixer, orders=orders)


def drawn_scores(found: Sampler, steps: int = 60, task: str = "qa") -> list[list[int]]:
    return [[int(SCORES[task][row]) for row in found.draw()[task]] for _ in range(steps)]


def test_only_open_rows_are_drawn_and_each_once_before_any_again():
    found = sampler(start=0.2, steps=60)
    how, seen = found.orders["qa"].pacing, []
    for step in range(60):
        rows = [int(SCORES["qa"][row]) for row in found.draw()["qa"]]
        assert max(rows) < np.ceil(100 * how.open_share(step, 60)), "a row that was not open yet"
        seen += rows
    assert sorted(seen[:100]) == list(range(100)), "all rows open before they would come again"
    small = sampler(start=1.0)
    rows = [row for _ in range(60) for row in small.draw()["anger"]]
    assert all(sorted(rows[i : i + 3]) == [0, 1, 2] for i in range(0, 120, 3))


def test_what_is_delivered_is_easy_first_hard_first_or_neither():
    """Compare with rows shuffled, and with the reversed order: the mean difficulty over the first and last steps."""
    easy, hard = sampler(), sampler("hard_first")
    shuffled = sampler(start=1.0)
    first = {name: np.mean(drawn_scores(one, 10)) for name, one in (("easy", easy), ("hard", hard), ("none", shuffled))}
    assert first["easy"] < 20 < 35 < first["none"] < 65 < 80 < first["hard"]
    late = {name: np.mean(drawn_scores(one, 50)[-20:]) for name, one in (("easy", easy), ("hard", hard))}
    assert late["hard"] < 50 < late["easy"], "what was left over comes later"


@pytest.mark.parametrize(("shape", "middle"), [("linear", 0.6), ("sqrt", 0.72), ("step", 0.2)])
def test_the_open_share_grows_as_its_shape_says(shape, middle):
    how = RowPacing("length", start=0.2, steps=0.5, shape=shape)
    shares = [how.open_share(step, 100) for step in range(100)]
    assert shares[0] == 0.2
    assert shares[25] == pytest.approx(middle)
    assert shares[49] < 1
    assert shares[50:] == [1.0] * 50
    assert shares == sorted(shares)


@pytest.mark.parametrize("mixing", MIXINGS)
def test_a_state_gives_the_draws_that_would_have_come(mixing):
    whole = sampler(mixing=mixing)
    draws = []
    for step in range(60):
        draws.append(whole.draw())
        whole.observe(dict.fromkeys(SIZES, 1.0 + step / 60), step)
    for stop in (1, 17, 45):
        first = sampler(mixing=mixing)
        for step in range(stop):
            first.draw()
            first.observe(dict.fromkeys(SIZES, 1.0 + step / 60), step)
        again = sampler(mixing=mixing)
        again.load_state_dict(first.state_dict())
        for step in range(stop, 60):
            assert again.draw() == draws[step]
            again.observe(dict.fromkeys(SIZES, 1.0 + step / 60), step)


def test_skipped_draws_open_rows_too():
    one, other = sampler(), sampler()
    draws = [one.draw() for _ in range(30)]
    for _ in range(29):
        other.skip()
    assert other.draw() == draws[29]


def test_ties_are_broken_by_the_seed_and_nan_is_hard():
    how = RowPacing("loss", start=0.1)
    orders = [PacedRows("a", 50, seed, how, 10, [0.0] * 49 + [float("nan")]) for seed in (0, 0, 1)]
    assert orders[0].sorted == orders[1].sorted != orders[2].sorted
    assert orders[0].sorted[-1] == 49


def test_a_state_without_what_was_opened_is_refused():
    found = sampler()
    state = found.state_dict()
    del state["opened"]
    with pytest.raises(InputError, match="opened"):
        sampler().load_state_dict(state)


def test_keys_of_rows_are_told_from_those_of_the_mixing():
    given = {"rows": "column:难度", "order": "hard_first", "pacing": {"start": "1e-1", "shape": "sqrt"}, "until": 0.3}
    assert split_row_pacing(given) == (RowPacing("column:难度", "hard_first", 0.1, 0.5, "sqrt"), {"until": 0.3})
    own = {"rows": "length", "order": "loss", "pacing": "root"}  # of `mixing: curriculum`
    assert split_row_pacing(own) == (RowPacing("length"), {"order": "loss", "pacing": "root"})
    assert split_row_pacing({"order": "easy_first"}) == (None, {"order": "easy_first"})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"rows": "size"}, "must be length, loss or column:NAME, got 'size'"),
        ({"rows": "column:"}, "must be length, loss or column:NAME"),
        ({"rows": "length", "pacing": {"begin": 0.1}}, "has no `begin`. Allowed: start, steps, shape"),
        ({"rows": "length", "pacing": {"start": 0}}, "`mixing_args.pacing.start` must be"),
        ({"rows": "length", "pacing": {"steps": 1.5}}, "`mixing_args.pacing.steps` must be"),
    ],
)
def test_what_rows_may_not_say_is_refused(arguments, words):
    with pytest.raises(InputError, match=re.escape(words)):
        split_row_pacing(arguments)


def test_an_unknown_shape_is_named():
    with pytest.raises(UnknownNameError, match="cubic"):
        split_row_pacing({"rows": "length", "pacing": {"shape": "cubic"}})
