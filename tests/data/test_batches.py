import pytest
import torch

from mtl_opt.batch import IGNORE_INDEX
from mtl_opt.data.batches import collate, collate_prompts
from mtl_opt.data.text.tokens import EncodedRow


def encoded(*ids: int) -> EncodedRow:
    return EncodedRow(list(ids), [IGNORE_INDEX, *ids[1:]], shortened=False)


def test_rows_of_a_task_are_contiguous_and_padded_on_the_right() -> None:
    batch = collate([[encoded(1, 2, 3), encoded(4, 5)], [], [encoded(6, 0)]], pad_token_id=0)
    assert batch.input_ids.tolist() == [[1, 2, 3], [4, 5, 0], [6, 0, 0]]
    assert batch.attention_mask.tolist() == [[1, 1, 1], [1, 1, 0], [1, 1, 0]]
    assert batch.labels.tolist() == [[-100, 2, 3], [-100, 5, -100], [-100, 0, -100]]
    assert batch.task_ids.tolist() == [0, 0, 2]
    assert batch.position_ids is None
    assert {t.dtype for t in vars(batch).values() if t is not None} == {torch.int64}


def test_collating_leaves_the_rows_alone() -> None:
    short = encoded(1, 2)
    collate([[short, encoded(1, 2, 3)]], pad_token_id=0)
    assert short == encoded(1, 2)


def test_a_batch_without_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one row, got none for 2 tasks"):
        collate([[], []], pad_token_id=0)


def test_prompts_are_padded_on_the_left() -> None:
    ids, mask = collate_prompts([[1, 2, 3], [4]], pad_token_id=9)
    assert ids.tolist() == [[1, 2, 3], [9, 9, 4]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]


def test_a_batch_without_prompts_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one prompt"):
        collate_prompts([], pad_token_id=0)
