"""Task heads: classification, token classification, regression, language modelling, on one shared model."""

from mtl_opt.models.heads.backbone import put_heads
from mtl_opt.models.heads.base import POOLINGS, Head, HeadRows, Output
from mtl_opt.models.heads.classification import ClassificationHead
from mtl_opt.models.heads.files import save_head, save_heads
from mtl_opt.models.heads.lm import LanguageModelHead
from mtl_opt.models.heads.model import MultiTaskModel
from mtl_opt.models.heads.prediction import labels_of, predict
from mtl_opt.models.heads.registry import HEADS, build_head, head_options, reads
from mtl_opt.models.heads.regression import LOSSES, RegressionHead
from mtl_opt.models.heads.token_classification import TokenClassificationHead

__all__ = [
    "HEADS",
    "LOSSES",
    "POOLINGS",
    "ClassificationHead",
    "Head",
    "HeadRows",
    "LanguageModelHead",
    "MultiTaskModel",
    "Output",
    "RegressionHead",
    "TokenClassificationHead",
    "build_head",
    "head_options",
    "labels_of",
    "predict",
    "put_heads",
    "reads",
    "save_head",
    "save_heads",
]
