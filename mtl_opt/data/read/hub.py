"""Records that Hugging Face `datasets` reads: Parquet, Arrow, a saved folder, a data set by name; also as a stream."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mtl_opt.data.read.files import Records
from mtl_opt.errors import InputError

BUILDERS = {
    ".parquet": "parquet", ".arrow": "arrow", ".json": "json", ".jsonl": "json", ".csv": "csv", ".tsv": "csv",
    ".txt": "text",
}  # fmt: skip
"""Which builder of `datasets` reads a file."""


def load(
    path: str,
    *,
    subset: str | None = None,
    folder: str | None = None,
    split: str | None = None,
    streaming: bool = False,
) -> Any:
    """Load a data set by file, saved folder or name."""
    import datasets  # seconds of import that text files do not need

    kind = BUILDERS.get(Path(path).suffix.lower()) if Path(path).is_file() else None
    if Path(path).suffix.lower() in BUILDERS and not Path(path).exists():
        raise InputError(f"Data file `{path}` does not exist.")
    extra = {"delimiter": "\t"} if path.lower().endswith(".tsv") else {}
    try:
        with quiet(datasets):
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
def quiet(datasets: Any) -> Iterator[None]:
    """Keep the bars of `datasets` off the terminal while it loads."""
    shown = datasets.utils.is_progress_bar_enabled()
    datasets.utils.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.utils.enable_progress_bars()


def records_of(dataset: Any, path: str) -> Records:
    """Give every record with its number."""
    classes = {
        name: feature for name, feature in (dataset.features or {}).items() if type(feature).__name__ == "ClassLabel"
    }
    try:
        for number, record in enumerate(_plain(dataset), start=1):
            for name, feature in classes.items():
                if isinstance(record.get(name), int) and record[name] >= 0:
                    record[name] = feature.int2str(record[name])
            yield number, record
    except InputError:
        raise
    except Exception as error:  # a reader of a stream raises whatever its format has
        reason = str(error).split("\n")[0]
        raise InputError(f"Data set `{path}` cannot be read: {reason.rstrip('.')}.") from error


def _plain(dataset: Any) -> Iterable[dict[str, Any]]:
    """Leave images and audio undecoded: only text is read, and decoding needs packages of its own."""
    for record in dataset:
        yield dict(record) if isinstance(record, Mapping) else {"text": record}
