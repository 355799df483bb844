"""Predictions in the words of the task."""

from dataclasses import replace

import pytest
import torch
from models.head_cases import SPECS, batch_of, with_heads

from mtl_opt.batch import IGNORE_INDEX
from mtl_opt.errors import InputError
from mtl_opt.models import (
    predict,
)


def test_predictions_are_in_the_words_of_the_task():
    model = with_heads("encoder")
    batch = batch_of(model, [0, 1, 2, 3])
    found = predict(model, batch)
    with torch.no_grad():
        outputs = {output.task: output for output in model.outputs(batch)}
    assert found[0] == SPECS["情感"]["labels"][int(outputs["情感"].values.argmax())]
    assert found[1] == pytest.approx(float(outputs["score"].values))
    assert len(found[2]) == 2  # two labelled words
    assert set(found[2]) <= {"O", "B"}
    nothing = replace(batch, labels=torch.full_like(batch.labels, IGNORE_INDEX))
    assert len(predict(model, nothing)[2]) == int(batch.attention_mask[2].sum())
    text = with_heads("decoder")
    with pytest.raises(InputError, match="`qa` answers in text"):
        predict(text, batch_of(text, [4]))
