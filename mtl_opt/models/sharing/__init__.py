"""Ways of sharing a model between tasks: which parameters all train, and which belong to one."""

import inspect
from collections.abc import Mapping
from typing import Any

from mtl_opt.errors import InputError, UnknownNameError
from mtl_opt.models.sharing.base import (
    AdapterSharing,
    Sharing,
    SharingContext,
    TaskOptions,
    private_parameters,
    row_terms,
    share,
)
from mtl_opt.models.sharing.cross_stitch import CrossStitch
from mtl_opt.models.sharing.disentangled import Disentangled
from mtl_opt.models.sharing.experts import Experts, GatedLora
from mtl_opt.models.sharing.files.peft_folder import lora_matrices, save_peft_folder
from mtl_opt.models.sharing.files.products import TaskProducts, folder_names, head_product, merge, products_of
from mtl_opt.models.sharing.files.sharing_files import load_sharing, read_about, save_sharing
from mtl_opt.models.sharing.hard import Hard, PrivateLayers
from mtl_opt.models.sharing.hydra import Hydra, RoutedLora
from mtl_opt.models.sharing.mtan import MTAN
from mtl_opt.models.sharing.mtl_lora import MixedLora, MTLLoRA
from mtl_opt.models.sharing.parts.groups import GroupLora
from mtl_opt.models.sharing.parts.layers import AdaptedLinear, LinearLayer
from mtl_opt.models.sharing.parts.lora import PrivateLora, SharedLora
from mtl_opt.models.sharing.parts.task_attention import TaskAttention
from mtl_opt.models.sharing.rotograd import RotoGrad
from mtl_opt.models.sharing.selective import Selective
from mtl_opt.models.sharing.soft import Soft
from mtl_opt.models.sharing.sparse_experts import SparseExperts, SparseLora
from mtl_opt.models.sharing.task_attention_lora import TaskAttentionLora

SHARING: dict[str, type[Sharing]] = {
    "hard": Hard,
    "private_layers": PrivateLayers,
    "selective": Selective,
    "mtl_lora": MTLLoRA,
    "hydra": Hydra,
    "experts": Experts,
    "sparse_experts": SparseExperts,
    "soft": Soft,
    "cross_stitch": CrossStitch,
    "task_attention": TaskAttentionLora,
    "mtan": MTAN,
    "disentangled": Disentangled,
    "rotograd": RotoGrad,
}
"""The one registry: the command line, tests and docs read it."""

__all__ = [
    "MTAN",
    "SHARING",
    "AdaptedLinear",
    "AdapterSharing",
    "CrossStitch",
    "Disentangled",
    "Experts",
    "GatedLora",
    "GroupLora",
    "Hard",
    "Hydra",
    "LinearLayer",
    "MTLLoRA",
    "MixedLora",
    "PrivateLayers",
    "PrivateLora",
    "RotoGrad",
    "RoutedLora",
    "Selective",
    "SharedLora",
    "Sharing",
    "SharingContext",
    "Soft",
    "SparseExperts",
    "SparseLora",
    "TaskAttention",
    "TaskAttentionLora",
    "TaskOptions",
    "TaskProducts",
    "build_sharing",
    "folder_names",
    "head_product",
    "load_sharing",
    "lora_matrices",
    "merge",
    "private_parameters",
    "products_of",
    "read_about",
    "row_terms",
    "save_peft_folder",
    "save_sharing",
    "share",
]


def build_sharing(name: str, arguments: Mapping[str, Any]) -> Sharing:
    """Build a way of sharing by name.

    Args:
        name: One of `SHARING`.
        arguments: Its arguments.

    Returns:
        The way of sharing, to be put into a model by `share`.

    Raises:
        InputError: If an argument is unknown or not allowed.
        UnknownNameError: If there is no such name.
    """
    if name not in SHARING:
        raise UnknownNameError("value of `sharing`:", name, SHARING)
    accepted = inspect.signature(SHARING[name]).parameters
    unknown = [key for key in arguments if key not in accepted]
    if unknown:
        allowed = ", ".join(accepted) or "none"
        raise InputError(f"`sharing_args`: `{name}` has no argument `{unknown[0]}`. Allowed: {allowed}.")
    try:
        return SHARING[name](**arguments)
    except (TypeError, ValueError) as error:
        raise InputError(f"`sharing_args` of `{name}`: {error}") from error
