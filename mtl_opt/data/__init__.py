"""Rows on disk to batches. In the order of the flow: formats, registry, templates, tokens, mixing, collate, packing."""

from mtl_opt.data.collate import collate, collate_prompts
from mtl_opt.data.formats import Row, read_rows
from mtl_opt.data.mixing import BalancedSampler
from mtl_opt.data.packing import collate_packed
from mtl_opt.data.registry import TaskFiles, TaskRows, hold_out, load_rows
from mtl_opt.data.templates import TEMPLATES, Template, encode_rows, get_template
from mtl_opt.data.tokens import EncodedRow, check_tokenizer

__all__ = [
    "TEMPLATES",
    "BalancedSampler",
    "EncodedRow",
    "Row",
    "TaskFiles",
    "TaskRows",
    "Template",
    "check_tokenizer",
    "collate",
    "collate_packed",
    "collate_prompts",
    "encode_rows",
    "get_template",
    "hold_out",
    "load_rows",
    "read_rows",
]
