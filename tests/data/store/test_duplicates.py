"""Duplicates: hashes of rows, counts across a split and across tasks, near duplicates, clusters, what is dropped."""

import json
import unicodedata

import numpy as np
import pytest

from mtl_opt.data.read.rows import Row
from mtl_opt.data.registry import task_entries
from mtl_opt.data.store.duplicates import ASKED, WHOLE, NearTexts, clusters, marks_of, overlaps
from mtl_opt.data.store.loading import SplitRules, load_rows
from mtl_opt.data.store.opener import Opener
from mtl_opt.data.text.encoding import Encoder
from mtl_opt.data.text.template_names import get_template
from mtl_opt.errors import InputError

LONG = "The customer called three times about the same card and nobody ever called back, which is a shame. "


def row(asked, answer="a", group=None):
    return Row(asked, "", answer, None, "f", 1, group=group)


@pytest.fixture
def load(plain_tokenizer, tmp_path):
    """Write rows `(asked, answer, group)` of tasks and load them; a pair of lists is a training and a held-out part."""

    def write(name, rows):
        keys = ("instruction", "output", "group")
        lines = [json.dumps(dict(zip(keys, one, strict=False)), ensure_ascii=False) + "\n" for one in rows]
        (tmp_path / name).write_text("".join(lines), encoding="utf-8")
        return str(tmp_path / name)

    def run(tasks, cache=False, **rules):
        entries = {}
        for task, rows in tasks.items():
            parts = rows if isinstance(rows, tuple) else (rows,)
            keys = zip(("file", "eval_file"), parts, strict=False)
            entries[task] = {key: write(f"{task}.{key}.jsonl", part) for key, part in keys}
        opener = Opener(
            Encoder(plain_tokenizer, get_template("default"), 64),
            cache=tmp_path / "cache" if cache else None,
            keep_small=True,
        )
        return load_rows(task_entries(entries), opener, SplitRules(**rules))

    return run


def texts(rows):
    return [one.instruction for one in rows]


def test_marks_see_through_white_space_and_composition():
    composed, apart = unicodedata.normalize("NFC", "é 客户"), unicodedata.normalize("NFD", "é \n\u3000客户 ")
    first, second, third = marks_of([row(composed), row(apart), row(apart, "b")])
    assert first.tolist() == second.tolist()
    assert first[ASKED] == third[ASKED]
    assert first[WHOLE] != third[WHOLE]
    # Where the question ends and the answer begins counts.
    assert len(np.unique(marks_of([row("a b", "c"), row("a", "b c")])[:, WHOLE])) == 2


def test_overlaps_agree_with_sets():
    chance = np.random.default_rng(0)
    sides = [{task: [row(*pair) for pair in chance.integers(0, 9, (40, 2)).astype(str)] for task in "ab"} for _ in "xy"]
    train, held = ({t: marks_of(rows) for t, rows in side.items()} for side in sides)
    found = overlaps(train, held)
    pairs = [{t: [(r.instruction, r.output) for r in rows] for t, rows in side.items()} for side in sides]
    for task, other in ("ab", "ba"):
        own, asked = set(pairs[0][task]), {question for question, _ in pairs[0][task]}
        assert found[task].shared == sum(pair in own for pair in pairs[1][task])
        assert found[task].asked == sum(pair not in own and pair[0] in asked for pair in pairs[1][task])
        assert found[task].duplicates == 40 - len(own)
        assert found[task].elsewhere == {other: sum(pair in set(pairs[0][other]) for pair in pairs[1][task])}


@pytest.mark.parametrize("cache", [False, True])
def test_what_both_sides_hold_is_counted_within_and_across_tasks(load, cache):
    rows = [("x", "1"), ("y", "2"), ("y", "2")], [("x", "1"), ("y", "3"), ("z", "4"), ("客", "5")]
    tasks = {"qa": rows, "摘要": ([("客", "5")], [("x", "1")])}
    for _ in range(2):
        found = load(tasks, cache=cache).overlap
        assert (found["qa"].duplicates, found["qa"].shared, found["qa"].asked) == (1, 1, 1)
        assert found["qa"].elsewhere == {"摘要": 1}
        assert (found["摘要"].shared, found["摘要"].elsewhere) == (0, {"qa": 1})


def test_exact_duplicates_are_left_out_of_training_alone(load):
    rows = [("x", "1"), ("y", "2"), ("y", " 2"), ("z", "3"), ("y", "9")], [("x", "1"), ("x", "1")]
    found = load({"qa": rows}, deduplicate="exact")
    assert texts(found.train["qa"]) == ["y", "z", "y"]
    assert len(found.train_tokens["qa"]) == len(found.labels["qa"]) == 3
    assert len(found.eval["qa"]) == 2
    assert (found.overlap["qa"].dropped, found.overlap["qa"].shared, found.overlap["qa"].duplicates) == (2, 0, 0)


def test_near_duplicates_are_left_out_too(load):
    rows = [(LONG + "one", "a"), ("unlike", "a"), (LONG + "two", "a")], [(LONG + "three", "a")]
    assert texts(load({"qa": rows}, deduplicate="exact").train["qa"]) == [LONG + "one", "unlike", LONG + "two"]
    assert texts(load({"qa": rows}, deduplicate="near").train["qa"]) == ["unlike"]


def test_nothing_left_to_train_on_is_refused(load):
    with pytest.raises(InputError, match="Task `qa`: `deduplicate: exact` leaves nothing to train on: all of its 1 "):
        load({"qa": ([("x", "1")], [("x", "1")])}, deduplicate="exact")


def test_a_split_by_group_divides_neither_questions_nor_groups(load):
    rows = [(f"q{i // 2}", str(i), None if i % 3 else f"g{i // 20}") for i in range(200)]
    plain, split = (load({"qa": rows}, val_size=0.25, by_group=by) for by in (False, True))
    assert plain.overlap["qa"].asked
    assert split.overlap["qa"].asked == split.overlap["qa"].shared == 0
    sides = [{one.group for one in side["qa"]} - {None} for side in (split.train, split.eval)]
    assert not sides[0] & sides[1]


def test_a_split_by_group_meets_the_share_as_nearly_as_whole_groups_allow(load):
    rows = [(f"q{i % 25}", str(i)) for i in range(100)]
    assert len(load({"qa": rows}, val_size=0.22, by_group=True).eval["qa"]) == 20
    assert len(load({"qa": rows}, val_size=0.01, by_group=True).eval["qa"]) == 4
    with pytest.raises(InputError, match="all of one group"):
        load({"qa": [("q", str(i)) for i in range(9)]}, val_size=0.2, by_group=True)


def test_clusters_join_over_questions_and_groups():
    rows = [row("a", group="1"), row("b", group="2"), row("a", "x", "2"), row("c"), row("c", "y"), row("d")]
    numbers = clusters(marks_of(rows))
    assert [numbers[0] == n for n in numbers] == [True, True, True, False, False, False]
    assert numbers[3] == numbers[4] != numbers[5]


def test_fewer_held_out_rows_are_the_same_ones_and_are_not_trained_on(load):
    rows = [(f"q{i}", str(i)) for i in range(40)]
    every, some, again = (load({"qa": rows}, val_size=0.5, most_held_out=most) for most in (None, 5, 5))
    assert len(some.eval["qa"]) == len(some.eval_tokens["qa"]) == 5
    assert texts(some.eval["qa"]) == texts(again.eval["qa"])
    assert texts(some.train["qa"]) == texts(every.train["qa"])
    assert "measures 5 of its 20 held-out rows" in some.notes[-1]


def test_unrelated_texts_are_no_near_duplicates():
    known = NearTexts()
    assert not any(
        known.find(f"{i} {chr(97 + i % 26) * 3} text about {i * i} things and {chr(110 + i % 9) * 4}")
        for i in range(60)
    )
    assert not known.find("客户非常生气，因为信用卡被盗刷了。")
    assert known.find("客户非常生气，因为信用卡被盗刷了！")


def test_file_line_and_task_are_no_part_of_a_mark():
    assert marks_of([Row("a", "", "b", None, "f", 1)]).tolist() == marks_of([Row("a", "", "b", "t", "g", 2)]).tolist()


def test_a_split_by_group_says_where_it_has_no_groups_or_nothing_to_divide(load):
    rows = [(f"q{i}", "a", f"g{i}" if i % 2 else None) for i in range(20)]
    plain = [row[:2] for row in rows]
    assert load({"qa": rows}, val_size=0.2, by_group=True).warnings == []
    assert "No row of task `b` has a `group`" in load({"a": rows, "b": plain}, val_size=0.2, by_group=True).warnings[0]
    assert "changes nothing" in load({"a": (rows, plain)}, val_size=0.2, by_group=True).warnings[0]
