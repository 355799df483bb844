"""Records read by Hugging Face `datasets`: Parquet, Arrow, saved folders, named data sets; also as streams."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mtl_opt.data.read.files import Records
from mtl_opt.errors import InputError

BUILDERS = {
    ".parquet": "parquet", ".arrow": "arrow", ".json": "json", ".jsonl": "json", ".csv": "csv", ".tsv": "csv",
    ".txt": "text",
}  # fmt: skip
"""Builder of `datasets` for each file extension."""


def load_dataset(
    path: str,
    *,
    subset: str | None = None,
    folder: str | None = None,
    split: str | None = None,
    streaming: bool = False,
) -> Any:
    """Load a data set from a file, a saved folder, or by name."""
    import datasets  # takes seconds to import, and text files do not need it

    kind = BUILDERS.get(Path(path).suffix.lower()) if Path(path).is_file() else None
    if Path(path).suffix.lower() in BUILDERS and not Path(path).exists():
        raise InputError(f"Data file `{path}` does not exist.")
    extra = {"delimiter": "\t"} if path.lower().endswith(".tsv") else {}
    try:
        with without_progress_bars(datasets):
            if kind is not None:
                found = datasets.load_dataset(kind, data_files=path, split="train", streaming=streaming, **extra)
            elif (Path(path) / "state.json").exists():
                saved = datasets.load_from_disk(path)
                found = saved.to_iterable_dataset() if streaming else saved
            else:
                found = datasets.load_dataset(
                    path, subset, data_dir=folder, split=split or "train", streaming=streaming
                )
    except (
        OSError,
        ValueError,
        RuntimeError,
        KeyError,
        TypeError,
        ImportError,
        datasets.exceptions.DatasetsError,
    ) as e:
        reason = next((line for line in str(e).splitlines() if line.strip()), type(e).__name__)
        raise InputError(f"Data set `{path}` cannot be loaded: {reason.rstrip('.')}.") from e
    return found


@contextmanager
def without_progress_bars(datasets: Any) -> Iterator[None]:
    """Hide the progress bars of `datasets`."""
    shown = datasets.utils.is_progress_bar_enabled()
    datasets.utils.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.utils.enable_progress_bars()


def records_of(dataset: Any, path: str) -> Records:
    """Yield every record with its number, from 1; classes as their names, texts as `{text}`."""
    classes = {
        name: feature for name, feature in (dataset.features or {}).items() if type(feature).__name__ == "ClassLabel"
    }
    try:
        for number, value in enumerate(dataset, start=1):
            record = dict(value) if isinstance(value, Mapping) else {"text": value}
            for name, feature in classes.items():
                if isinstance(record.get(name), int) and record[name] >= 0:
                    record[name] = feature.int2str(record[name])
            yield number, record
    except InputError:
        raise
    except Exception as error:  # a stream raises whatever its reader raises
        reason = str(error).split("\n")[0]
        raise InputError(f"Data set `{path}` cannot be read: {reason.rstrip('.')}.") from error
