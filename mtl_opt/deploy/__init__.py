"""A trained run put to use: plain model folders (`mtl-opt export`), answers (`mtl-opt generate`)."""

from mtl_opt.deploy.answer import Answering, open_answering, prompt_row, read_prompts
from mtl_opt.deploy.export_folders import ExportOptions, export
from mtl_opt.deploy.trained_run import TrainedRun, open_trained

__all__ = [
    "Answering",
    "ExportOptions",
    "TrainedRun",
    "export",
    "open_answering",
    "open_trained",
    "prompt_row",
    "read_prompts",
]
