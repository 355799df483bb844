"""Row formats of dialogues: sharegpt, OpenAI messages, MFTCoder rounds; with tools, calls and observations."""

import contextlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mtl_opt.data.read.files import json_type
from mtl_opt.data.read.row_formats.record import Record, checked_text
from mtl_opt.data.read.rows import Turn
from mtl_opt.errors import InputError

ROLE_NAMES = {
    "human": "user", "user": "user",
    "gpt": "assistant", "assistant": "assistant", "bot": "assistant",
    "system": "system", "developer": "system",
    "observation": "observation", "tool": "observation", "function": "observation", "ipython": "observation",
    "function_call": "call",
}  # fmt: skip
"""Role of each name that is common in data files."""

TAG_ROLES = {
    "user_tag": "user",
    "assistant_tag": "assistant",
    "observation_tag": "observation",
    "function_tag": "call",
    "system_tag": "system",
}
"""Role that each tag of a registry entry renames."""


class Message(NamedTuple):
    """Hold one message; `role` is a value of `ROLE_NAMES`."""

    role: str
    text: str
    learn: bool
    reasoning: str = ""


LEARN_KEYS = ("loss_weight", "loss_mask", "loss_scale", "loss", "weight", "train")
"""Keys of a message or of its row that say whether an answer is learnt; the first one found counts."""

REASONING_KEYS = ("reasoning_content", "thinking", "reasoning")
"""Keys of an answer that hold what is thought before it; the first one found counts."""


def sharegpt(record: Record) -> dict[str, Any]:
    """Read `{conversations: [{from, value}], system, tools}`."""
    default = "conversations" if "conversations" in record.values or "messages" not in record.values else "messages"
    return message_fields(record, default)


def openai(record: Record) -> dict[str, Any]:
    """Read `{messages: [{role, content}], tools}`, with `tool_calls` and multi-part contents."""
    return message_fields(record, "messages")


def chat_rounds(record: Record) -> dict[str, Any]:
    """Read MFTCoder's `{id, data_name, chat_rounds: [{role, content}]}`; `data_name` names the task."""
    return {**message_fields(record, "chat_rounds"), "task": record.task(("data_name",))}


def message_fields(record: Record, default: str) -> dict[str, Any]:
    """Read a list of messages, and the system message and tools beside it."""
    column, messages = record.required("messages", default)
    fields = dialogue_fields(flagged(messages_of(column, messages, record), column, record), record)
    fields["system"] = fields["system"] or record.optional("system", "system")
    fields["tools"] = tools_text(record)
    return fields


def messages_of(column: str, messages: object, record: Record, default_learn: bool = True) -> list[Message]:
    """Read a list of messages."""
    if not isinstance(messages, list) or not messages:
        raise InputError(
            f"{record.where}: `{column}` must be a list of messages, got {json_type(messages) if messages else 'none'}."
        )
    found = []
    for number, message in enumerate(messages, start=1):
        what = f"`{column}`, message {number}"
        if not isinstance(message, Mapping):
            raise InputError(f"{record.where}: {what} must be an object, got {json_type(message)}.")
        found.append(one_message(message, what, record, default_learn))
    return found


def flagged(messages: list[Message], column: str, record: Record) -> list[Message]:
    """Apply what the row itself says about what is learnt: one value, or a list of one per message."""
    key = next((key for key in LEARN_KEYS if record.values.get(key) is not None), None)
    if key is None or key == column:
        return messages
    value = record.values[key]
    values = value if isinstance(value, list) else [value] * len(messages)
    if len(values) != len(messages):
        raise InputError(
            f"{record.where}: `{key}` must be one value or one per message ({len(messages)}), got {len(values)}."
        )
    learnt = [is_learnt({key: one}, f"`{key}`, element {i}", record, True) for i, one in enumerate(values, start=1)]
    return [message._replace(learn=message.learn and flag) for message, flag in zip(messages, learnt, strict=True)]


def one_message(message: Mapping[str, Any], what: str, record: Record, default_learn: bool) -> Message:
    """Read one message."""
    tags = record.spec.tags
    role_key = tags.get("role_tag") or ("role" if "role" in message else "from")
    content_key = tags.get("content_tag") or ("content" if "content" in message or "role" in message else "value")
    name = message.get(role_key)
    if name is None:
        raise InputError(
            f"{record.where}: {what} has no `{role_key}`; it has {', '.join(map(str, message)) or 'none'}."
        )
    own = {tags[tag]: role for tag, role in TAG_ROLES.items() if tag in tags}
    role = own.get(str(name)) or ROLE_NAMES.get(str(name))
    if role is None:
        allowed = ", ".join(dict.fromkeys([*own, *ROLE_NAMES]))
        raise InputError(f"{record.where}: {what} has the unknown role {name!r}. Allowed: {allowed}.")
    text = content_text(message.get(content_key), f"{what}, `{content_key}`", record)
    if role == "assistant" and holds_calls(message.get(content_key)):
        role = "call"
    calls = message.get("tool_calls") or [one for one in (message.get("function_call"),) if one]
    if calls:
        if not isinstance(calls, list):
            raise InputError(f"{record.where}: {what}, `tool_calls` must be a list, got {json_type(calls)}.")
        text = "\n".join([*([text] if text.strip() else []), *map(call_text, calls)])
        role = "call"
    if not text.strip() and role not in {"system", "observation"}:
        raise InputError(f"{record.where}: {what} is empty.")
    thought = reasoning_of(message, role, what, record)
    return Message(role, text, is_learnt(message, what, record, default_learn), thought)


def reasoning_of(message: Mapping[str, Any], role: str, what: str, record: Record) -> str:
    """Read what is thought before an answer."""
    key = next((key for key in REASONING_KEYS if message.get(key)), None)
    if key is None:
        return ""
    if role not in {"assistant", "call"}:
        raise InputError(f"{record.where}: {what} is of `{role}` and has `{key}`; only answers have reasoning.")
    return checked_text(key, message[key], record.where).strip()


def holds_calls(content: object) -> bool:
    """Return whether a part of a content is a tool call."""
    parts = content if isinstance(content, list) else []
    return any(isinstance(part, Mapping) and part.get("type") in {"tool_call", "tool_calls"} for part in parts)


def content_text(content: object, what: str, record: Record) -> str:
    """Join the parts of a content, with reasoning inside the `<think>` tags of reasoning models."""
    if content is None:
        return ""
    if not isinstance(content, list):
        if isinstance(content, Mapping):
            return json.dumps(content, ensure_ascii=False)
        return checked_text(what.replace("`", ""), content, record.where)
    texts = []
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        value = None if kind is None else part.get("value", part.get("text", part.get(kind)))
        if kind not in {"text", "reasoning", "thinking", "tool_call", "tool_calls"} or value is None:
            raise InputError(
                f"{record.where}: {what} has a part of type {kind!r}. Allowed: text, reasoning, tool_call."
            )
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        texts.append(f"<think>\n{text}\n</think>\n" if kind in {"reasoning", "thinking"} else text)
    return "\n".join(texts)


def call_text(call: Any) -> str:
    """Serialise a tool call as one JSON object."""
    function = call.get("function", call) if isinstance(call, Mapping) else call
    if isinstance(function, Mapping) and isinstance(function.get("arguments"), str):
        with contextlib.suppress(ValueError):  # arguments that are not JSON stay text
            function = {"name": function.get("name"), "arguments": json.loads(function["arguments"])}
    return json.dumps(function, ensure_ascii=False)


def is_learnt(message: Mapping[str, Any], what: str, record: Record, default: bool) -> bool:
    """Read whether an answer is learnt: one of `LEARN_KEYS` that is 0 or 1, or true or false."""
    for key in LEARN_KEYS:
        value = message.get(key)
        if value is not None:
            if value not in (0, 1):
                shown = value if isinstance(value, int | float | str) else json_type(value)
                raise InputError(
                    f"{record.where}: {what}, `{key}` must be 0 or 1, got {shown}: an answer is learnt or not, and "
                    "only whole tasks are weighed (`tasks.NAME.weight`)."
                )
            return bool(value)
    return default


def check_only_answer(record: Record) -> None:
    """Raise for a row of one answer that is marked as not learnt, or weighed."""
    for key in LEARN_KEYS:
        value = record.values.get(key)
        if key in record.spec.columns.values() or not isinstance(value, int | float | list):
            continue  # a text is a column of the user's own; the log names it among those that are not read
        if not is_learnt({key: value}, "the row", record, default=True):
            raise InputError(
                f"{record.where}: `{key}: {str(value).lower()}` says that the only answer of the row is not learnt; "
                "leave the row out, or give `columns` without it."
            )


def tools_text(record: Record) -> str:
    """Read the tools: a text as it is, anything else as JSON."""
    tools = record.value("tools", "tools")
    if not tools:
        return ""
    return tools if isinstance(tools, str) else json.dumps(tools, ensure_ascii=False)


def joined_questions(messages: Sequence[Message]) -> tuple[list[Message], bool]:
    """Join questions that follow each other, and tell whether there were any."""
    found: list[Message] = []
    for message in messages:
        if found and message.role == found[-1].role == "user":
            found[-1] = message._replace(text=f"{found[-1].text}\n\n{message.text}")
        else:
            found.append(message)
    return found, len(found) < len(messages)


def dialogue_fields(messages: Sequence[Message], record: Record) -> dict[str, Any]:
    """Check that questions and answers alternate, and split the messages into history and last pair."""
    system, turns = "", list[Turn]()
    messages, joined = joined_questions(messages)
    if messages[0].role == "system":
        system, messages = messages[0].text, messages[1:]
    for message in messages:
        if message.role == "system":
            raise InputError(f"{record.where}: a system message stands within the dialogue; it must be the first.")
        answers = message.role in {"assistant", "call"}
        if turns and message.role == turns[-1].role == "observation":
            results = (*(turns[-1].results or (turns[-1].text,)), message.text)
            turns[-1] = turns[-1]._replace(text="\n".join(results), results=results)
        elif answers != bool(len(turns) % 2):
            raise InputError(f"{record.where}: turn {len(turns) + 1} is of `{message.role}`, out of turn.")
        else:
            role: Any = message.role  # no system message here
            turns.append(Turn(role, message.text, message.learn, message.reasoning))
    if not turns or len(turns) % 2:
        raise InputError(f"{record.where}: the dialogue ends without an answer.")
    if not any(turn.learn for turn in turns[1::2]):
        raise InputError(f"{record.where}: no answer of the dialogue is learnt.")
    *earlier, question, answer = turns
    return {
        "instruction": question.text, "input": "", "output": answer.text, "system": system,
        "history": tuple(earlier), "asks": question.role, "answers": answer.role, "learn": answer.learn,
        "reasoning": answer.reasoning, "results": question.results,
        "joined": joined,
    }  # fmt: skip
