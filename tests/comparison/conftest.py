"""The settings of a small grid: two methods, one seed, two steps."""

import pytest


@pytest.fixture
def grid(settings, tmp_path):
    changes = {"output_dir": str(tmp_path / "网格"), "combiners": ["sum", "pcgrad"], "seeds": [3], "max_steps": 2}
    return {**settings, **changes}
