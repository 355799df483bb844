"""An adapter per group of tasks, against shared and private ones."""

import torch
from models.sharing_cases import LORA, TASKS, inputs, one_adapter
from torch import nn

from mtl_opt.batch import task_rows
from mtl_opt.models.sharing import LinearLayer, PrivateLora, SharedLora

IDS = [(0, 0, 1, 1, 2, 2), (2, 0, 1, 0), (1, 1), ((0, 0, 2, 2, 2), (1, 2, 2, 0, 0))]


def test_all_in_one_group_is_shared_and_all_alone_private():
    together = one_adapter("selective", map={"up": "a"}, groups={"a": [list(TASKS)]})
    alone = one_adapter("selective", map={"up": "a"}, groups={"a": [[task] for task in TASKS]})
    layer = LinearLayer("up", nn.Linear(6, 5), 0, 1)
    shared, private = SharedLora(layer, LORA), PrivateLora(layer, LORA, TASKS)
    shared.load_state_dict(together.groups[0].state_dict())
    for task, adapter in enumerate(alone.groups):
        private.task_A[task].data, private.task_B[task].data = adapter.task_A.data, adapter.task_B.data
    for case in IDS:
        ids, x = inputs(case)
        with task_rows(ids):
            torch.testing.assert_close(together(x), shared(x))
            torch.testing.assert_close(alone(x), private(x))
    assert not together.task_parameters()
    assert list(alone.task_parameters()) == list(TASKS)
