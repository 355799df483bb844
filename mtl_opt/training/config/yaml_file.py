"""YAML in and out, with `key=value` arguments that override the file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from typing_extensions import override as overrides_method

from mtl_opt.errors import InputError

TEXT_KEYS = ("task_prefix", "instruction")
"""Keys whose values on the command line are texts, whatever YAML would read: `Task: {task}` is no mapping."""

NULLS = ("", "~", "null", "Null", "NULL")
"""How YAML writes that there is no value."""


class UniqueKeyLoader(yaml.SafeLoader):
    """Load YAML, but refuse duplicate keys: the plain loader silently drops the first of two tasks."""

    @overrides_method
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.value in seen and key_node.tag != "tag:yaml.org,2002:merge":
                line = key_node.start_mark.line + 1
                raise yaml.constructor.ConstructorError(None, None, f"`{key_node.value}` stands twice, line {line}")
            seen.add(key_node.value if isinstance(key_node.value, str) else id(key_node))
        return super().construct_mapping(node, deep)


def read_yaml(path: str | Path, overrides: Sequence[str]) -> dict[str, Any]:
    """Read a configuration file and apply `key=value` arguments.

    Args:
        path: The YAML file.
        overrides: Arguments `key=value`, values read as YAML; a dot reaches into a mapping.

    Returns:
        The raw settings.

    Raises:
        InputError: If the file is missing or no mapping, or an argument is not of this form.
    """
    try:
        settings = yaml.load(Path(path).read_text(encoding="utf-8"), UniqueKeyLoader)  # a SafeLoader
    except FileNotFoundError:
        raise InputError(f"There is no configuration file `{path}`.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The configuration file `{path}` cannot be read ({error}).") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: such as a date that does not exist
        raise InputError(f"`{path}` is no valid YAML ({' '.join(str(error).split())}).") from error
    if not isinstance(settings, dict):
        raise InputError(f"`{path}` must hold a mapping `key: value`, got {type(settings).__name__}.")
    return override(settings, overrides)


def dump_yaml(settings: Mapping[str, Any]) -> str:
    """Serialise settings as YAML in their own order, with Chinese text left readable."""
    return yaml.safe_dump(dict(settings), allow_unicode=True, sort_keys=False)


def override(settings: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Apply `key=value` arguments to raw settings.

    Args:
        settings: The settings before.
        overrides: Arguments `key=value`, values read as YAML; a dot reaches into a mapping.

    Returns:
        The settings after.

    Raises:
        InputError: If an argument is not of this form.
    """
    result = {str(key): value for key, value in settings.items()}
    for argument in overrides:
        key, sign, value = argument.partition("=")
        if not sign or not key:
            raise InputError(f"Argument `{argument}` must have the form key=value.")
        target = result
        *path, last = key.split(".")
        for part in path:
            inner = target.get(part)
            target[part] = {str(k): v for k, v in inner.items()} if isinstance(inner, dict) else {}
            target = target[part]
        target[last] = read_value(key, value)
    return result


def read_value(key: str, value: str) -> Any:
    """Read a value of the command line as YAML, where `#` begins no comment and texts stay as they are written."""
    quoted = value[:1] in {"'", '"'}
    if key.rpartition(".")[2] in TEXT_KEYS and not quoted and value.strip() not in NULLS:
        return value
    try:
        found = yaml.load(value, UniqueKeyLoader)  # a SafeLoader
    except (yaml.YAMLError, ValueError):
        raise InputError(f"The value of `{key}` is no valid YAML: {value}.") from None
    nothing = found is None and value.strip() not in NULLS
    commented = "#" in value and not quoted and (isinstance(found, str) or value[:1] not in {"{", "["})
    if nothing or (commented and isinstance(found, str | dict)):
        return value
    return found
