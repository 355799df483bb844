"""What a chat template does, found by rendering placeholders: its frame of an answer, and what it has a place for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jinja2 import TemplateError

from mtl_opt.data.text.answer_frame import AnswerFrame, frame_of
from mtl_opt.errors import InputError

PROBE = "mtlopttextofuser"
"""Placeholder for a text, rendered to find what a chat template puts around it."""

THOUGHT = "mtloptthought"
"""Placeholder for reasoning, and for the name of a tool."""

REASONING_KEYS = ("reasoning_content", "thinking", "reasoning")
"""Keys of a message under which chat templates read reasoning."""


@dataclass(frozen=True)
class Renderer:
    """Render dialogues with the chat template of a tokenizer.

    Attributes:
        tokenizer: The tokenizer.
        listed: Whether contents are given as lists of parts, as templates of models that also see images want them.
    """

    tokenizer: Any
    listed: bool = False

    def text(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: list[Any] | None = None,
        where: str = "",
        ask: bool = False,
        switches: Mapping[str, Any] | None = None,
    ) -> str:
        """Render a dialogue; with `ask`, up to where the next answer begins."""
        given = [dict(message) for message in messages]
        if self.listed:
            for message in given:
                message["content"] = [{"type": "text", "text": message["content"]}]
        try:
            return self.tokenizer.apply_chat_template(
                given, tools=tools, tokenize=False, add_generation_prompt=ask, **(switches or {})
            )
        except (TemplateError, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            place = f"{where}: " if where else ""
            raise InputError(
                f"{place}the tokenizer's chat template fails ({str(error).rstrip('.')}); write what it does not take "
                "into the question or the answer, or choose another `template`."
            ) from error

    def shown(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> str:
        """Render a dialogue of placeholders; empty where the template refuses it."""
        try:
            return self.text(messages, **options)
        except InputError:
            return ""


@dataclass(frozen=True)
class ChatFacts:
    """What a chat template does.

    Attributes:
        renderer: Renders it.
        frame: What it writes around an answer.
        system: Whether it writes a system message.
        tools: Whether it writes tools.
        calls: Form of a call's arguments: "object" or "text"; None where it writes no calls.
        reasoning: Key of a message under which it reads reasoning; None where it has no place for it.
        quiet: Switches for an answer without reasoning.
        thoughtful: Switches for an answer with reasoning.
    """

    renderer: Renderer
    frame: AnswerFrame
    system: bool = True
    tools: bool = False
    calls: str | None = None
    reasoning: str | None = None
    quiet: Mapping[str, Any] = field(default_factory=dict)
    thoughtful: Mapping[str, Any] = field(default_factory=dict)


def probe(tokenizer: Any, thinking: bool | None) -> ChatFacts:
    """Render placeholders with a tokenizer's chat template."""
    source = str(tokenizer.chat_template)
    knows = "enable_thinking" in source
    renderer = Renderer(tokenizer)
    asked = [{"role": "user", "content": "a"}]
    told = [*asked, {"role": "assistant", "content": PROBE}]
    if PROBE not in renderer.shown(told):
        listed = Renderer(tokenizer, listed=True)
        if PROBE not in listed.shown(told):
            raise InputError(_loses(renderer, told))
        renderer = listed
    free: list[Mapping[str, Any]] = [{"enable_thinking": thinking}] if knows and thinking is not None else [{}]
    switch = knows and thinking is None
    off: list[Mapping[str, Any]] = [{"enable_thinking": False}] if switch else []
    on: list[Mapping[str, Any]] = [{"enable_thinking": True}] if switch else []
    quiet, lead, tail = _quiet(renderer, told, free + off)
    reasoning, thought_end, thoughtful = _reasoning(renderer, told, free + on)
    if thinking is not None and not knows and reasoning is None:
        raise InputError("`enable_thinking`: the tokenizer's chat template does not know it; remove the key.")
    lead = "" if thinking else lead
    frame = frame_of(tail, tokenizer, lead, thought_end, quiet.get("enable_thinking"))
    system = PROBE in renderer.shown([{"role": "system", "content": PROBE}, *asked])
    return ChatFacts(renderer, frame, system, "tools" in source, _calls(renderer, asked), reasoning, quiet, thoughtful)


def _loses(renderer: Renderer, told: Sequence[Mapping[str, Any]]) -> str:
    """Say that a template writes no answers, or why it fails."""
    try:
        renderer.text(told)
    except InputError as error:
        return str(error)
    return "The tokenizer's chat template does not write the text of an answer; choose another `template`."


def _quiet(
    renderer: Renderer, told: Sequence[Mapping[str, Any]], choices: Sequence[Mapping[str, Any]]
) -> tuple[Mapping[str, Any], str, str]:
    """Choose the switches with which the prompt leads straight to an answer; return them, the lead and the tail."""
    found = []
    for switches in choices:
        full, ask = renderer.shown(told, switches=switches), renderer.shown(told[:-1], ask=True, switches=switches)
        before, _, after = full.partition(PROBE)
        if before.startswith(ask):
            found.append((switches, before[len(ask) :], after))
    if not found:  # every row is refused, by its place
        return choices[0], "", renderer.shown(told, switches=choices[0]).rpartition(PROBE)[2]
    return min(found, key=lambda one: bool(one[1]))


def _reasoning(
    renderer: Renderer, told: Sequence[Mapping[str, Any]], choices: Sequence[Mapping[str, Any]]
) -> tuple[str | None, str, Mapping[str, Any]]:
    """Find the key of reasoning, the text between it and the answer, and the switches with which it is learnt."""
    found: list[tuple[str, str, Mapping[str, Any]]] = []
    for key in REASONING_KEYS:
        for switches in choices:
            full = renderer.shown([*told[:-1], {**told[-1], key: THOUGHT}], switches=switches)
            ask = renderer.shown(told[:-1], ask=True, switches=switches)
            _, mark, rest = full.partition(THOUGHT)
            if mark and PROBE in rest:
                one = (key, rest.partition(PROBE)[0], switches)
                if full.partition(THOUGHT)[0].startswith(ask):
                    return one
                found.append(one)
    return found[0] if found else (None, "", choices[0])


def _calls(renderer: Renderer, asked: Sequence[Mapping[str, Any]]) -> str | None:
    """Find the form in which a template writes calls of tools."""
    named = None
    for form, arguments in (("object", {"a": PROBE}), ("text", f'{{"a": "{PROBE}"}}')):
        call = {"id": "call00000", "type": "function", "function": {"name": THOUGHT, "arguments": arguments}}
        text = renderer.shown([*asked, {"role": "assistant", "content": "", "tool_calls": [call]}])
        if THOUGHT in text and PROBE in text:
            return form
        named = named or ("object" if THOUGHT in text else None)
    return named
