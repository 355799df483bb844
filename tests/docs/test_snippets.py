"""The Python of the guide on loops runs, block after block."""

import re
from pathlib import Path

GUIDE = Path(__file__).parents[2] / "docs" / "loops.md"


def test_every_block_of_the_guide_on_loops_runs(capsys):
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) >= 6
    names = {}
    for block in blocks:
        exec(compile(block, str(GUIDE), "exec"), names)
    assert "tensor" in capsys.readouterr().out
