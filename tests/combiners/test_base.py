"""What a combiner of one's own gets from the base class."""

import pytest
import torch

from mtl_opt.combiners import Combiner


class Inverse(Combiner):
    """Weights by inverse norm, learnt count of steps: the smallest method with state."""

    def __init__(self, limit=None):
        super().__init__()
        self.limit = limit

    def allocate(self, num_tasks):
        if self.limit is not None and num_tasks > self.limit:
            raise ValueError("too many tasks")
        self.register_buffer("seen", torch.zeros(num_tasks, dtype=torch.float64))

    def weights(self, gramian, losses=None, *, tasks=None):
        step = self.enter(gramian, losses, tasks)
        self.seen[step.tasks] += 1
        return step.leave(1 / step.gramian.diagonal().sqrt())


def test_it_combines_by_overriding_weights_alone():
    rows = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
    assert torch.allclose(Inverse()(rows), torch.tensor([0.6, 1.8]))


def test_a_bind_that_failed_leaves_it_unbound():
    combiner = Inverse(limit=2)
    for _ in range(2):
        with pytest.raises(ValueError, match="too many"):
            combiner.bind(["a", "b", "c"])
    combiner.bind(["a", "b"])
    assert combiner.tasks == ("a", "b")


def test_its_state_travels_with_the_names():
    combiner = Inverse()
    combiner.bind(["a", "b", "c"])
    combiner.weights(torch.eye(2), tasks=[2, 0])
    fresh = Inverse()
    fresh.load_state_dict(combiner.state_dict())
    assert fresh.seen.tolist() == [1, 0, 1]


def test_the_input_of_a_method_is_float64_on_the_cpu():
    step = Inverse().enter(torch.eye(2, dtype=torch.bfloat16), torch.ones(2), None)
    assert step.gramian.dtype == step.losses.dtype == torch.float64
    assert step.leave(torch.ones(2, dtype=torch.float64)).dtype == torch.bfloat16


def test_rounding_of_a_float32_gramian_is_no_asymmetry():
    rows = torch.randn(4, 5000)
    gramian = rows @ rows.T
    gramian[0, 1] += 1e-6 * gramian[0, 0]
    assert Inverse().weights(gramian).isfinite().all()


def test_a_method_without_weights_cannot_be_built():
    with pytest.raises(TypeError, match="abstract"):
        Combiner()
