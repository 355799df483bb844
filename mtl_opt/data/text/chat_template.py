"""The tokenizer's own chat template: rendered by the tokenizer, and split into parts that may be truncated."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

from transformers import PreTrainedTokenizerBase

from mtl_opt.data.read.rows import Row, Turn
from mtl_opt.data.text.answer_frame import AnswerFrame
from mtl_opt.data.text.chat_probe import PROBE, ChatFacts, probe
from mtl_opt.data.text.templates import TOOLS, Template, no_reasoning
from mtl_opt.data.text.tokens import Part
from mtl_opt.data.text.tool_calls import split_calls
from mtl_opt.errors import InputError

THINK = re.compile(r"\s*<think>\s*(.*?\S)\s*</think>\s*(.*)", re.DOTALL)
"""Reasoning written into an answer."""


@dataclass(frozen=True)
class Dialogue:
    """Hold a row as a chat template takes it.

    Attributes:
        messages: Its messages.
        kinds: Kind of the text of each message.
        answers: Place of every answer among the messages.
        tools: Tools for the template; None where there are none or the template writes none.
        switches: Further variables of the template.
    """

    messages: list[dict[str, Any]]
    kinds: list[str]
    answers: list[int]
    tools: list[Any] | None
    switches: Mapping[str, Any]


@dataclass(frozen=True)
class ChatTemplate(Template):
    """Use the chat template that comes with the tokenizer.

    Attributes:
        name: Name of the template.
        tokenizer: The tokenizer; None until `filled`.
        joined: True: prompt and answer are tokenised as one text.
        opens: False: the template writes its own beginning of sequence.
        thinking: Value of `enable_thinking`; None: on for rows with reasoning, off for others.
    """

    name: str
    tokenizer: Any = None
    joined: bool = True
    opens: bool = False
    thinking: bool | None = None

    def filled(self, tokenizer: PreTrainedTokenizerBase) -> "ChatTemplate":
        """Bind the tokenizer, which must have a chat template."""
        if not tokenizer.chat_template:
            raise InputError(f"Template `{self.name}` needs a chat template, and the tokenizer has none; try `chatml`.")
        return replace(self, tokenizer=tokenizer)

    def thinking_as(self, thinking: bool | None) -> "ChatTemplate":
        """Set `enable_thinking`."""
        return replace(self, thinking=thinking)

    @cached_property
    def facts(self) -> ChatFacts:
        """What the chat template does."""
        return probe(self.tokenizer, self.thinking)

    def frame(self, tokenizer: PreTrainedTokenizerBase) -> AnswerFrame:  # noqa: ARG002 - bound by `filled`
        """Return what the chat template writes around an answer."""
        return self.facts.frame

    def segments(self, row: Row, prefix: str, learn: Sequence[bool]) -> list[str]:
        """Return questions and answers in turn, each as the difference of two renderings of the dialogue."""
        dialogue = self.dialogue(row, prefix)
        texts, done = list[str](), ""
        whole = self.rendered(dialogue, row)
        for number, (learnt, place) in enumerate(zip(learn, dialogue.answers, strict=True)):
            last = number == len(learn) - 1
            if not learnt and not last:
                continue
            prompt = self.rendered(dialogue, row, place, ask=True)
            full = whole if last else self.rendered(dialogue, row, place + 1)
            eos = str(self.tokenizer.eos_token or "")
            if eos and not whole.startswith(full):  # some templates close only the end of a dialogue
                full = full.removesuffix(eos)
            if not (prompt.startswith(done) and full.startswith(prompt) and whole.startswith(full)):
                raise prefix_error(row, not last)
            self.check_answer(row, dialogue.messages[place], full[len(prompt) :])
            lead = self.facts.frame.lead
            if not self.thinks(row.turns[number][1]) and full.startswith(prompt + lead):
                prompt += lead
            texts += [prompt[len(done) :], full[len(prompt) :]]
            done = full
        return texts

    def thinks(self, answer: Turn) -> bool:
        """Return whether an answer holds reasoning."""
        mark = self.facts.frame.thought_end.strip()
        return bool(answer.reasoning or (mark and (mark in answer.text or THINK.match(answer.text))))

    def check_answer(self, row: Row, message: Mapping[str, Any], text: str) -> None:
        """Raise if the template leaves out a part of an answer."""
        names = [call["function"]["name"] for call in message.get("tool_calls", ())]
        wanted = [(name, "call") for name in names] + [(message["content"].strip(), "text beside the call")] * bool(
            names
        )
        if self.facts.reasoning:
            wanted.append((message.get(self.facts.reasoning, "").strip(), "reasoning"))
        for part, what in wanted:
            if part not in text:
                raise InputError(
                    f"{row.place}: the tokenizer's chat template leaves out the {what} {part[:40]!r} of an answer; "
                    "take it out of the row or choose another `template`."
                )

    def parts(self, row: Row, prefix: str, learn: Sequence[bool]) -> list[list[Part]]:
        """Split the segments into parts; a question is one part where the template changes texts."""
        texts = self.segments(row, prefix, learn)
        pieces = self.pieces(row, prefix)
        found: list[list[Part]] = []
        for number, text in enumerate(texts):
            inside, pieces = split_parts(pieces, len(text))
            answers = number % 2 == 1
            learnt = number < len(texts) - 1 or learn[-1]
            found.append([Part(text, "answer" if learnt else "history")] if answers else inside)
            if not answers and "".join(part.text for part in inside) != text:
                found[-1] = [Part(text, "question")]
        return found

    def pieces(self, row: Row, prefix: str) -> list[Part]:
        """Split the rendered dialogue into parts; empty where the template does not reproduce texts unchanged."""
        dialogue = self.dialogue(row, prefix)
        contents = [str(message["content"]) for message in dialogue.messages]
        probed = [{**message, "content": f"{PROBE}{i}x"} for i, message in enumerate(dialogue.messages)]
        marked = replace(dialogue, messages=probed)
        text, found = self.rendered(marked, row), list[Part]()
        for i, (content, kind) in enumerate(zip(contents, dialogue.kinds, strict=True)):
            frame, mark, text = text.partition(f"{PROBE}{i}x")
            if not mark:
                return []
            found += [Part(frame, "frame"), Part(content, kind)]
        found.append(Part(text, "frame"))
        whole = self.rendered(dialogue, row)
        for strip in (str, str.strip):  # many templates trim what they are given
            candidate = [Part(strip(p.text), p.kind) if p.kind != "frame" else p for p in found]
            if "".join(part.text for part in candidate) == whole:
                bare = replace(marked, tools=None)
                return with_tools(candidate, self.rendered(bare, row)) if dialogue.tools else candidate
        return []

    def dialogue(self, row: Row, prefix: str) -> Dialogue:
        """Convert a row to what `apply_chat_template` takes."""
        tools = tools_of(row) if self.facts.tools else None
        system = row.system
        if row.tools and tools is None:
            system = "\n\n".join(part for part in (system, TOOLS + row.tools) if part)
        if system and not self.facts.system:
            raise InputError(
                f"{row.place}: the tokenizer's chat template takes no system message; write it into the question or "
                "choose another `template`."
            )
        messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
        kinds, answers, calls = ["system"] * len(messages), list[int](), list[dict[str, Any]]()
        for number, (question, answer) in enumerate(row.turns):
            asked = self.asked(question, "" if number else prefix, calls)
            answers.append(len(messages) + len(asked))
            messages += [*asked, self.answered(row, answer)]
            kinds += ["history"] * (len(asked) + 1)
            calls = messages[-1].get("tool_calls", [])
        kinds[-len(asked) - 1 :] = ["question"] * len(asked) + ["answer"]
        thinks = self.thinks(row.turns[-1][1]) or bool(self.thinking)
        return Dialogue(messages, kinds, answers, tools, self.facts.thoughtful if thinks else self.facts.quiet)

    def asked(self, question: Turn, prefix: str, calls: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Convert a question, or the results of tools, each to a message of its own."""
        if question.role != "observation" or not self.facts.calls:
            return [{"role": "user", "content": prefix + question.text}]
        found = []
        for number, text in enumerate(question.results or (question.text,)):
            call = calls[min(number, len(calls) - 1)] if calls else None
            known = {"tool_call_id": call["id"], "name": call["function"]["name"]} if call else {}
            found.append({"role": "tool", "content": text, **known})
        return found

    def answered(self, row: Row, answer: Turn) -> dict[str, Any]:
        """Convert an answer, its calls to `tool_calls` where the template writes them."""
        inline = THINK.match(answer.text) if self.facts.reasoning and not answer.reasoning else None
        if inline:
            answer = answer._replace(text=inline[2], reasoning=inline[1])
        message: dict[str, Any] = {"role": "assistant", "content": answer.text}
        if answer.reasoning:
            if self.facts.reasoning is None or self.thinking is False:
                raise no_reasoning(
                    row, "template: tokenizer" if self.facts.reasoning is None else "enable_thinking: false"
                )
            message[self.facts.reasoning] = answer.reasoning
        if answer.role != "call" or not self.facts.calls:
            return message
        text, calls = split_calls(answer.text)
        if not calls:
            raise InputError(
                f"{row.place}: the tool call {answer.text[:60]!r} is no JSON object with `name` and `arguments`, which "
                "the tokenizer's chat template writes in a form of its own."
            )
        return message | {
            "content": text,
            "tool_calls": [chat_call(call, i, self.facts.calls) for i, call in enumerate(calls)],
        }

    def rendered(self, dialogue: Dialogue, row: Row, end: int | None = None, ask: bool = False) -> str:
        """Render the first messages of a dialogue; with `ask`, up to where the next answer begins."""
        return self.facts.renderer.text(
            dialogue.messages[:end], dialogue.tools, row.place, ask=ask, switches=dialogue.switches
        )


def chat_call(call: Mapping[str, Any], number: int, form: str) -> dict[str, Any]:
    """Convert a call to an element of `tool_calls`."""
    arguments = call["arguments"]
    if form == "text" and not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    function = {"name": call["name"], "arguments": arguments}
    return {"id": f"call{number:05d}", "type": "function", "function": function}


def tools_of(row: Row) -> list[Any] | None:
    """Parse the tools of a row; None where there are none, or they are no list of objects."""
    return _parsed_tools(row.tools) if row.tools else None


@lru_cache(maxsize=1000)
def _parsed_tools(text: str) -> list[Any] | None:
    """Parse tools from JSON."""
    try:
        tools = json.loads(text)
    except ValueError:
        return None
    good = isinstance(tools, list) and bool(tools) and all(isinstance(tool, dict) for tool in tools)
    if not good:
        return None
    return [
        tool if "function" in tool or "name" not in tool else {"type": "function", "function": tool} for tool in tools
    ]


def split_parts(pieces: list[Part], length: int) -> tuple[list[Part], list[Part]]:
    """Split parts at a character position of their joined text."""
    left: list[Part] = []
    for number, part in enumerate(pieces):
        if len(part.text) > length:
            rest = [part._replace(text=part.text[length:]), *pieces[number + 1 :]]
            return [*left, part._replace(text=part.text[:length])], rest
        left.append(part)
        length -= len(part.text)
    return left, []


def with_tools(pieces: list[Part], without: str) -> list[Part]:
    """Mark the tools within the first frame: what the template writes only where there are tools."""
    first = pieces[0].text
    bare = without[: without.find(PROBE)]
    before = num_common(first, bare)
    after = num_common(first[before:][::-1], bare[before:][::-1])
    end = len(first) - after
    return [Part(first[:before], "frame"), Part(first[before:end], "tools"), Part(first[end:], "frame"), *pieces[1:]]


def num_common(first: str, second: str) -> int:
    """Return the length of the longest common prefix."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(first), len(second)))


def prefix_error(row: Row, earlier: bool = False) -> InputError:
    """Build the error for a chat template that renders the same prompt in two ways."""
    way = "set `mask_history: true` or choose" if earlier else "choose"
    return InputError(
        f"{row.place}: with the tokenizer's chat template the prompt is not a token prefix of prompt and answer, so "
        f"what is learnt is not what is generated; {way} another `template`."
    )
