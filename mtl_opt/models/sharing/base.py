"""The interface of a way of sharing: which parameters all tasks train, and which belong to one."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch.distributed as dist
from torch import Tensor, nn
from typing_extensions import override

from mtl_opt.batch import note_row_length
from mtl_opt.models.lora import LoraSettings
from mtl_opt.models.sharing.parts.layers import AdaptedLinear, LinearLayer, find_layers, replace_module


@dataclass(frozen=True)
class TaskOptions:
    """Options for the private parameters of one task.

    Attributes:
        dropout: Dropout on the input of its adapters; None for that of all.
        penalty: Strength of the penalty on its adapters, where the way of sharing has one; None for that of all.
        group: Group of tasks it belongs to; None for none.
        role: "main" or "auxiliary".
    """

    dropout: float | None = None
    penalty: float | None = None
    group: str | None = None
    role: str = "main"


@dataclass(frozen=True)
class SharingContext:
    """The model, tasks and settings that a way of sharing is applied to.

    Attributes:
        model: The frozen model.
        tasks: Names of the tasks.
        lora: Rank, scale and dropout of adapters.
        layers: The linear layers that adapters go to.
        options: What the user wants for each task; a task may be missing.
        asked: The options that `of_tasks` was asked for.
    """

    model: nn.Module
    tasks: tuple[str, ...]
    lora: LoraSettings
    layers: tuple[LinearLayer, ...]
    options: Mapping[str, TaskOptions] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)

    def of_tasks(self, name: str) -> dict[str, Any]:
        """Read one option of all tasks.

        Args:
            name: A field of `TaskOptions`.

        Returns:
            Its value by task, without the tasks that leave it open.
        """
        self.asked.add(name)
        found = {task: getattr(self.options.get(task, TaskOptions()), name) for task in self.tasks}
        return {task: value for task, value in found.items() if value is not None}


class Sharing(ABC):
    """Decide which parameters are shared; one subclass per name in `SHARING`.

    A subclass takes its arguments in `__init__`, all with defaults, and refuses bad ones with a `ValueError` that
    names argument, rule and value. Parameters of one task alone are in modules with `task_parameters()`.
    """

    summary: ClassVar[str]
    """What it shares, in one sentence."""
    paper: ClassVar[str] = "–"
    """Where it comes from."""
    penalises: ClassVar[bool] = False
    """True if `tasks.NAME.penalty` is read."""
    present: Sequence[int] | None = None
    """Tasks with rows in the step under way, set before `penalty`: others must not move. None counts all."""
    read: frozenset[str] = frozenset()
    """Options of tasks that the model it is put into has a place for, set by `share`."""

    @abstractmethod
    def apply(self, context: SharingContext) -> None:
        """Insert the modules into the model, in place.

        Args:
            context: The model and what is known of the tasks. A `ValueError` or `InputError` says what does not fit.
        """

    def penalty(self, step: int, total_steps: int) -> Tensor | None:  # noqa: ARG002 - most have none
        """Compute a term on parameters alone, added to the objective after the tasks' gradients are combined.

        Args:
            step: Number of the step, from 1.
            total_steps: Steps of the run.

        Returns:
            A scalar; None where there is nothing to penalise. `[]`
        """
        return None

    def optimizer_options(self) -> dict[int, dict[str, float]]:
        """Return optimizer settings of parameters that differ from the run's.

        Returns:
            By identity of a parameter: `learning_rate_factor` (times that of the run) and `weight_decay` (where the
            user has named none for the task).
        """
        return {}

    def report(self) -> dict[str, float]:
        """Return values to monitor during training, such as mixing strengths.

        Returns:
            Numbers by name.
        """
        return {}


class AdapterSharing(Sharing):
    """Add an adapter to every target layer; a subclass chooses it layer by layer."""

    @abstractmethod
    def adapter(self, layer: LinearLayer, context: SharingContext) -> nn.Module:
        """Build the adapter of one layer.

        Args:
            layer: The layer.
            context: The model and what is known of the tasks.

        Returns:
            A module as `layers.Adapter` describes it.
        """

    @override
    def apply(self, context: SharingContext) -> None:
        for layer in context.layers:
            replace_module(context.model, layer.path, AdaptedLinear(layer.module, self.adapter(layer, context)))


def share(
    model: nn.Module,
    sharing: Sharing,
    tasks: Sequence[str],
    lora: LoraSettings,
    options: Mapping[str, TaskOptions] | None = None,
) -> nn.Module:
    """Freeze a model and put a way of sharing into it.

    Args:
        model: The base model; changed in place.
        sharing: The way of sharing; the model keeps it as its attribute `sharing`.
        tasks: Names of the tasks, in the order of the task ids.
        lora: Rank, scale, dropout and target layers of adapters.
        options: What the user wants for each task.

    Returns:
        The same model.
    """
    model.requires_grad_(False)
    layers = tuple(find_layers(model, lora.target))
    context = SharingContext(model, tuple(tasks), lora, layers, options or {})
    sharing.apply(context)
    sharing.read = frozenset(context.asked)
    note_tokens(model)
    model.__dict__["sharing"] = sharing  # no submodule: its parameters are those of the model
    model.__dict__["tasks"] = tuple(tasks)
    model.__dict__["task_options"] = dict(options or {})
    return model


def note_tokens(model: nn.Module) -> None:
    """Record the sequence length at the embedding, for layers whose input is flattened to `[batch * seq, dim]`."""
    embedding_of = getattr(model, "get_input_embeddings", None)
    if callable(embedding_of):
        embedding_of().register_forward_pre_hook(_note)


def _note(module: nn.Module, inputs: tuple[Any, ...]) -> None:  # noqa: ARG001 - the signature of a hook
    """Record the sequence length of token ids."""
    if inputs and isinstance(inputs[0], Tensor):
        note_row_length(inputs[0])


def private_parameters(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Collect the parameters that belong to one task alone, from every module that says so.

    Args:
        model: The model.

    Returns:
        Trainable parameters by task; whatever else is trainable is shared.
    """
    found: dict[str, list[nn.Parameter]] = {}
    known: set[int] = set()  # a head of a task may have parts that name tasks of their own
    for module in model.modules():
        own = getattr(module, "task_parameters", None)
        if callable(own) and module is not model:
            groups = own()
            if not all(id(p) in known for group in groups.values() for p in group):
                for task, parameters in groups.items():
                    found.setdefault(task, []).extend(p for p in parameters if p.requires_grad)
            known |= {id(p) for group in groups.values() for p in group}
    return found


def row_terms(model: nn.Module) -> Tensor | None:  # -> [tasks]
    """Collect terms that depend on rows and belong to the tasks' losses (balance losses, discriminators), in training.

    Args:
        model: The model, after its forward.

    Returns:
        Their sum by task, each a mean over the task's rows or tokens; None where there is none. `[tasks]`
    """
    if not hasattr(model, "sharing"):
        return None
    sources = model.__dict__.get("_row_term_sources")
    if sources is None:  # walked once: a large model has thousands of modules
        sources = model.__dict__["_row_term_sources"] = [m for m in model.modules() if hasattr(m, "take_row_terms")]
    # Taken in evaluation too, so that nothing of it is left for the next step.
    terms = [term for source in sources if (term := source.take_row_terms()) is not None]
    return sum(terms[1:], start=terms[0]) if terms and model.training else None


def over_processes(value: Tensor) -> Tensor:
    """Sum a tensor over all processes; a collective, so every process must call it."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return value
    on_gpu = dist.get_backend() == "nccl"
    total = value.clone() if on_gpu or value.device.type == "cpu" else value.cpu()
    dist.all_reduce(total)
    return total.to(value.device)
