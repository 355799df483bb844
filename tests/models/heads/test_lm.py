"""Text heads: each row through the output adapter of its own task."""

import pytest
import torch
from models.head_cases import with_heads

from mtl_opt.batch import task_rows


def test_generation_asks_each_rows_own_output_adapter():
    model = with_heads("decoder")
    model.eval()
    ids = torch.randint(1, 61, (3, 4))
    tasks = torch.tensor([4, 5, 4])
    with task_rows(tasks), torch.no_grad():
        arguments = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 3, "do_sample": False, "pad_token_id": 0}
        found = model.generate(input_ids=ids, eos_token_id=None, **arguments)
        for row, task in enumerate(tasks.tolist()):
            said = ids[row : row + 1]
            for _ in range(3):  # the literal way: the whole row again for every token
                hidden = model.base.model(input_ids=said).last_hidden_state
                logits = model.heads[task].adapt(hidden, model.base.lm_head(hidden))
                said = torch.cat([said, logits[:, -1].argmax(-1, keepdim=True)], 1)
            assert found[row].tolist() == said[0].tolist()
    assert type(model.base.get_output_embeddings()) is torch.nn.Linear
    with pytest.raises(ValueError, match="task_rows"):
        model.generate(input_ids=ids, max_new_tokens=1, pad_token_id=0)
