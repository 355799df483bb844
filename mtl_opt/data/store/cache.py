"""On-disk cache of tokenised rows, memory-mapped; keyed by content, row format, template, tokenizer and task."""

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mtl_opt.data.read.files import read_bytes
from mtl_opt.data.read.hub import load_dataset
from mtl_opt.data.read.sources import Source, files_of
from mtl_opt.data.store.tables import SourceTable, StoredRows, TokenTable
from mtl_opt.data.text.encoding import Encoder
from mtl_opt.errors import InputError

logger = logging.getLogger(__name__)

VERSION = 4
"""Raise it whenever reading or encoding yields other rows or tokens: older cache entries are then ignored."""

TOKEN_ARRAYS = ("ids", "offsets", "spans", "span_offsets", "flags")
ROW_ARRAYS = ("codes", "label_codes", "marks", "row_offsets")
"""Arrays of a cached table, each in a file of its own."""

LINES = "rows.jsonl"
META = "meta.json"
BLOCK = 1 << 20
"""Bytes read at a time while hashing a file."""


def default_root() -> Path:
    """Return the default folder of the cache: `mtl_opt/tokens` below `$XDG_CACHE_HOME` or `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mtl_opt" / "tokens"


def table_key(source: Source, encoder: Encoder, skip_bad_rows: bool) -> str:
    """Compute the cache key of a source: a digest of everything its rows and tokens depend on."""
    facts = {
        "version": VERSION,
        "content": content_digests(source),
        "source": asdict(source),
        "template": template_text(encoder),
        "tokenizer": tokenizer_digest(encoder.tokenizer),
        "encoder": [
            encoder.cutoff_len, encoder.prefix, encoder.task, encoder.mask_history, encoder.learn_prompt,
            encoder.allow_cutting, encoder.blocks,
        ],
        "skip_bad_rows": skip_bad_rows,
        **({"heads": dict(encoder.heads)} if encoder.heads else {}),
    }  # fmt: skip
    return digest(json.dumps(facts, sort_keys=True, ensure_ascii=False).encode())


def template_text(encoder: Encoder) -> str:
    """Identify a template by all it writes, or by its name where heads answer and it does not fit the tokenizer."""
    if encoder.template.joined:
        return f"{encoder.template.name} {encoder.template.thinking}"
    try:
        return repr(encoder.filled)
    except InputError:
        if not encoder.heads:
            raise
        return encoder.template.name


def content_digests(source: Source) -> list[str]:
    """Digest the content of a source: one digest per file, or the fingerprint of a `datasets` data set."""
    if source.hub or (Path(source.path) / "state.json").exists():
        dataset = load_dataset(source.path, subset=source.subset, folder=source.folder, split=source.split)
        return [str(dataset._fingerprint)]
    target = [] if source.layout.target is None else [source.layout.target]
    return [file_digest(file) for file in (*files_of(source), *target)]


def file_digest(file: str) -> str:
    """Hash a file block by block."""
    found = hashlib.blake2b(digest_size=20)
    try:
        with Path(file).open("rb") as content:
            while block := content.read(BLOCK):
                found.update(block)
    except OSError:
        read_bytes(file)  # raises the same error sentence as every other reader
    return found.hexdigest()


def digest(data: bytes) -> str:
    """Hash bytes."""
    return hashlib.blake2b(data, digest_size=20).hexdigest()


def tokenizer_digest(tokenizer: Any) -> str:
    """Hash everything of a tokenizer that decides its tokens."""
    if tokenizer.is_fast:
        inner = tokenizer.backend_tokenizer.to_str()
    else:
        inner = json.dumps(sorted(tokenizer.get_vocab().items()), ensure_ascii=False)
    special = json.dumps(tokenizer.special_tokens_map, ensure_ascii=False, default=str, sort_keys=True)
    return digest(f"{type(tokenizer).__name__} {special} {tokenizer.chat_template!r} {inner}".encode())


def save_table(table: SourceTable, rows: Path, row_offsets: Any, files: Iterable[str], folder: Path) -> None:
    """Write a table to a folder, atomically."""
    assert table.tokens is not None
    partial = folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f"{folder.name}.partial-", dir=folder.parent))
        for name in TOKEN_ARRAYS:
            np.save(partial / f"{name}.npy", getattr(table.tokens, name))
        for name, numbers in zip(ROW_ARRAYS, (table.codes, table.label_codes, table.marks, row_offsets), strict=True):
            np.save(partial / f"{name}.npy", numbers)
        shutil.copyfile(rows, partial / LINES)
        meta = {
            "tasks": table.tasks,
            "labels": table.labels,
            "usage": table.usage,
            "bad": table.bad,
            "files": list(files),
        }
        (partial / META).write_text(json.dumps(meta, ensure_ascii=False), encoding="utf-8")
        if folder.exists():  # damaged or to be rebuilt; a process that has mapped the old files keeps them
            doomed = Path(tempfile.mkdtemp(prefix=f"{folder.name}.old-", dir=folder.parent))
            os.replace(folder, doomed)
            shutil.rmtree(doomed, ignore_errors=True)
        os.replace(partial, folder)
    except OSError as error:
        if not folder.is_dir():  # otherwise another process wrote it first
            logger.warning("Tokenised rows could not be cached in `%s`: %s.", folder, error)
    finally:
        if partial != folder:
            shutil.rmtree(partial, ignore_errors=True)


def load_table(folder: Path) -> SourceTable | None:
    """Memory-map a saved table; return None, with a warning, where it is damaged."""
    if not folder.is_dir():
        return None
    try:
        meta = json.loads((folder / META).read_text(encoding="utf-8"))
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in (*TOKEN_ARRAYS, *ROW_ARRAYS)}
        table = TokenTable(*(arrays[name] for name in TOKEN_ARRAYS))
        lines = np.memmap(folder / LINES, dtype=np.uint8, mode="r")
        # A file that was cut short still loads: compare every length with the one it must agree with.
        sizes = {len(arrays[name]) for name in ("codes", "label_codes", "marks")} | {len(arrays["row_offsets"]) - 1}
        good = sizes == {len(table)} and len(table.offsets) == len(table.span_offsets) == len(table) + 1
        ends = (table.offsets[-1], table.span_offsets[-1], arrays["row_offsets"][-1])
        good = good and [int(end) for end in ends] == [len(table.ids), len(table.spans), len(lines)]
        rows = StoredRows(lines, arrays["row_offsets"], meta["files"])
        columns = (
            meta["tasks"],
            arrays["codes"],
            meta["labels"],
            arrays["label_codes"],
            arrays["marks"],
            meta["usage"],
            meta["bad"],
        )
    except (OSError, ValueError, KeyError, TypeError, IndexError, EOFError) as error:
        logger.warning("Cached tokens in `%s` cannot be read (%s); they are made again.", folder, error)
        return None
    if not good:
        logger.warning("Cached tokens in `%s` do not fit together; they are made again.", folder)
        return None
    return SourceTable(rows, table, *columns)
