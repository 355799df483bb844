"""Data, from rows on disk to batches. In the order of the flow: registry, read, text, store, mixing, batches."""

from mtl_opt.data.batches import collate, collate_prompts
from mtl_opt.data.mixing import (
    EXHAUSTION,
    MIXINGS,
    Facts,
    Mixer,
    PacedRows,
    RowOrder,
    RowPacing,
    Sampler,
    build_mixer,
    rank_slice,
    split_row_pacing,
)
from mtl_opt.data.packing import collate_packed
from mtl_opt.data.read.row_formats import FORMATS, RowSpec
from mtl_opt.data.read.rows import Row
from mtl_opt.data.read.sources import Source, TaskSettings, iterate, read_rows
from mtl_opt.data.registry import ENTRY_KEYS, Entry, check_entry, held_out_sources, registry_entries, task_entries
from mtl_opt.data.store.cache import default_root
from mtl_opt.data.store.duplicates import Overlap, clusters, marks_of, overlaps
from mtl_opt.data.store.loading import SplitRules, TaskRows, hold_out, load_rows
from mtl_opt.data.store.opener import Opener, encoded
from mtl_opt.data.store.streams import StreamRows, load_streams
from mtl_opt.data.store.tables import TokenView, View
from mtl_opt.data.store.targets import TargetView, label_names, unseen_labels, with_targets
from mtl_opt.data.text.encoding import Encoder, encode_rows
from mtl_opt.data.text.template_names import TEMPLATES, get_template
from mtl_opt.data.text.templates import Template
from mtl_opt.data.text.tokens import EncodedRow, check_tokenizer

__all__ = [
    "ENTRY_KEYS",
    "EXHAUSTION",
    "FORMATS",
    "MIXINGS",
    "TEMPLATES",
    "EncodedRow",
    "Encoder",
    "Entry",
    "Facts",
    "Mixer",
    "Opener",
    "Overlap",
    "PacedRows",
    "Row",
    "RowOrder",
    "RowPacing",
    "RowSpec",
    "Sampler",
    "Source",
    "SplitRules",
    "StreamRows",
    "TargetView",
    "TaskRows",
    "TaskSettings",
    "Template",
    "TokenView",
    "View",
    "build_mixer",
    "check_entry",
    "check_tokenizer",
    "clusters",
    "collate",
    "collate_packed",
    "collate_prompts",
    "default_root",
    "encode_rows",
    "encoded",
    "get_template",
    "held_out_sources",
    "hold_out",
    "iterate",
    "label_names",
    "load_rows",
    "load_streams",
    "marks_of",
    "overlaps",
    "rank_slice",
    "read_rows",
    "registry_entries",
    "split_row_pacing",
    "task_entries",
    "unseen_labels",
    "with_targets",
]
