"""One run of a comparison, wherever it takes place: in this process or in a worker."""

import json
from dataclasses import fields, replace
from typing import Any

from mtl_opt.errors import DivergedError, InputError
from mtl_opt.training.config import TrainConfig
from mtl_opt.training.keys import DataKeys
from mtl_opt.training.loop import train
from mtl_opt.training.prepare import Prepared, prepare

DATA_KEYS = tuple(f.name for f in fields(DataKeys) if f.name != "only_tasks")


class DataCache:
    """Prepare data once for all runs that read the same rows with the same tokenizer."""

    def __init__(self) -> None:
        self.data: dict[str, Prepared] = {}
        self.untrained: dict[str, dict[str, dict[str, float]]] = {}

    def of(self, config: TrainConfig) -> Prepared:
        """Prepare the data of a run.

        Args:
            config: Its configuration.

        Returns:
            The data of all tasks. Runs that begin with the same function share what was measured of the untrained
            model: one adapter begins as the base model does, whatever the seed; other sharing, and heads, need not.
        """
        keys = {key: getattr(config, key) for key in (*DATA_KEYS, "model_name_or_path")}
        seeds = {"seed": config.seed, "data_seed": config.data_seed} if config.streaming else {}
        name = json.dumps({**keys, **seeds}, sort_keys=True, default=str)
        if name not in self.data:
            self.data[name] = prepare(config)
        begins_alike = config.sharing == "hard" and not config.heads
        start = "" if begins_alike else f"{config.sharing} {config.sharing_args} {config.seed}"
        return replace(self.data[name], untrained=self.untrained.setdefault(f"{name} {start}", {}))


def run_one(name: str, config: TrainConfig, cache: DataCache) -> dict[str, Any]:
    """Train one run.

    Args:
        name: Its name, for errors.
        config: Its configuration.
        cache: Prepares its data.

    Returns:
        `results`: what `all_results.json` holds, or None where the run diverged; `diverged`: in what, or None.

    Raises:
        InputError: If something does not fit; the sentence names the run.
    """
    try:
        return {"results": train(config, cache.of(config)), "diverged": None}
    except DivergedError as error:
        return {"results": None, "diverged": str(error)}
    except InputError as error:
        raise InputError(f"Run `{name}`: {error}") from error
