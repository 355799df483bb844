"""The tokenizer's own chat template: rendered by the tokenizer, and split into parts that may be truncated."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from mtl_opt.data.read.rows import Row, Turn
from mtl_opt.data.text.templates import TOOLS, Template
from mtl_opt.data.text.tokens import Part
from mtl_opt.errors import InputError

PROBE = "mtlopttextofuser"
"""Placeholder for a text, rendered to find what a chat template puts around it."""


@dataclass(frozen=True)
class ChatTemplate(Template):
    """Use the chat template that comes with the tokenizer.

    Attributes:
        name: Name of the template.
        tokenizer: The tokenizer; None until `filled`.
        joined: True: prompt and answer are tokenised as one text.
        opens: False: the template writes its own beginning of sequence.
    """

    name: str
    tokenizer: Any = None
    joined: bool = True
    opens: bool = False

    def filled(self, tokenizer: PreTrainedTokenizerBase) -> "ChatTemplate":
        """Bind the tokenizer, which must have a chat template."""
        if not tokenizer.chat_template:
            raise InputError(f"Template `{self.name}` needs a chat template, and the tokenizer has none; try `chatml`.")
        return ChatTemplate(self.name, tokenizer)

    def segments(self, row: Row, prefix: str, learn: Sequence[bool]) -> list[str]:
        """Return questions and answers in turn, each as the difference of two renderings of the dialogue."""
        messages, tools = self.messages(row, prefix)
        skipped = len(messages) - 2 * len(learn)
        texts, done = list[str](), ""
        whole = self.rendered(messages, tools, row.place)
        for number, learnt in enumerate(learn):
            if not learnt and number < len(learn) - 1:
                continue
            end = skipped + 2 * number + 2
            prompt = self.rendered(messages[: end - 1], tools, row.place, ask=True)
            full = whole if end == len(messages) else self.rendered(messages[:end], tools, row.place)
            if not (prompt.startswith(done) and full.startswith(prompt) and whole.startswith(full)):
                raise prefix_error(row, number < len(learn) - 1)
            texts += [prompt[len(done) :], full[len(prompt) :]]
            done = full
        return texts

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
        messages, tools = self.messages(row, prefix)
        contents = [str(message["content"]) for message in messages]
        kinds = ["system"] * (len(messages) - 2 * len(row.turns)) + ["history"] * (2 * len(row.turns))
        kinds[-2:] = ["question", "answer"]
        probed = [{**message, "content": f"{PROBE}{i}x"} for i, message in enumerate(messages)]
        text, found = self.rendered(probed, tools, row.place), list[Part]()
        for i, (content, kind) in enumerate(zip(contents, kinds, strict=True)):
            frame, mark, text = text.partition(f"{PROBE}{i}x")
            if not mark:
                return []
            found += [Part(frame, "frame"), Part(content, kind)]
        found.append(Part(text, "frame"))
        whole = self.rendered(messages, tools, row.place)
        for strip in (str, str.strip):  # many templates trim what they are given
            candidate = [Part(strip(p.text), p.kind) if p.kind != "frame" else p for p in found]
            if "".join(part.text for part in candidate) == whole:
                return with_tools(candidate, self.rendered(probed, None, row.place)) if tools else candidate
        return []

    def messages(self, row: Row, prefix: str) -> tuple[list[dict[str, Any]], list[Any] | None]:
        """Convert a row to the messages and tools that `apply_chat_template` takes."""
        tools = tools_of(row)
        system = row.system
        if row.tools and tools is None:
            system = "\n\n".join(part for part in (system, TOOLS + row.tools) if part)
        messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
        structured = "tool_calls" in str(self.tokenizer.chat_template)
        for number, (question, answer) in enumerate(row.turns):
            asked = question.text if number else prefix + question.text
            role = "tool" if question.role == "observation" and structured else "user"
            messages += [{"role": role, "content": asked}, answer_message(answer, structured)]
        return messages, tools

    def stop_text(self, tokenizer: PreTrainedTokenizerBase) -> str | None:
        """Return what the template puts after an answer."""
        messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": PROBE}]
        return self.filled(tokenizer).rendered(messages, None, "").rpartition(PROBE)[2].strip() or None

    def rendered(self, messages: list[dict[str, Any]], tools: list[Any] | None, where: str, ask: bool = False) -> str:
        """Render a dialogue; with `ask`, up to where the next answer begins."""
        try:
            return self.tokenizer.apply_chat_template(messages, tools=tools, tokenize=False, add_generation_prompt=ask)
        except (TemplateError, ValueError, TypeError, KeyError, IndexError) as error:
            place = f"{where}: " if where else ""
            raise InputError(f"{place}the tokenizer's chat template fails: {error}") from error


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
    return tools if good else None


def answer_message(answer: Turn, structured: bool) -> dict[str, Any]:
    """Convert an answer to a message, a tool call to `tool_calls` where the template knows them."""
    if answer.role == "call" and structured:
        try:
            calls = [json.loads(line) for line in answer.text.splitlines()]
        except ValueError:
            calls = []
        if calls and all(isinstance(call, dict) and "name" in call for call in calls):
            return {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"type": "function", "function": call} for call in calls],
            }
    return {"role": "assistant", "content": answer.text}


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
