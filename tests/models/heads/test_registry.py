"""The heads by name."""

import torch

from mtl_opt.models import (
    HEADS,
    MultiTaskModel,
)


def test_every_type_says_what_it_is():
    for cls in HEADS.values():
        assert cls.summary
        assert cls.__doc__
    assert issubclass(MultiTaskModel, torch.nn.Module)
