"""The frame of an answer: what a template writes before and after it, and what therefore ends it."""

from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from mtl_opt.data.text.tokens import tokenise


@dataclass(frozen=True)
class AnswerFrame:
    """What a template writes around an answer with one tokenizer; labels, generation, metrics and exports use it alike.

    Attributes:
        lead: Text between the generation prompt and an answer; it belongs to the prompt.
        tail: Text after an answer.
        closing: The eos token, learnt after the tail where the tail has no token that ends an answer; else empty.
        ends: Tokens that end an answer, the eos token among them.
        stop: Text that ends an answer before one of these tokens does; None where nothing but a token ends it.
        thought_end: Text between reasoning and answer; empty where the template has no place for reasoning.
        thinking: Value of `enable_thinking` in prompts; None where it is left out.
    """

    lead: str
    tail: str
    closing: str
    ends: tuple[int, ...]
    stop: str | None
    thought_end: str = ""
    thinking: bool | None = None

    def answer(self, text: str) -> str:
        """Return an answer without the reasoning before it."""
        mark = self.thought_end.strip()
        return text.rpartition(mark)[2].lstrip("\n") if mark and mark in text else text


def frame_of(
    tail: str, tokenizer: PreTrainedTokenizerBase, lead: str = "", thought_end: str = "", thinking: bool | None = None
) -> AnswerFrame:
    """Find what ends an answer in the text after it: its first token of the tokenizer's own, else eos."""
    eos = tokenizer.eos_token_id
    ids = tokenise([tail], tokenizer)[0] if tail else []
    marks = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    place = next((place for place, token in enumerate(ids) if token in marks), None)
    known = () if place is None else (ids[place],)
    before = tail if place is None else _text_before(tail, ids[place], tokenizer)
    closing = str(tokenizer.eos_token or "") if place is None else ""
    ends = tuple(dict.fromkeys([*known, *([] if eos is None else [eos])]))
    return AnswerFrame(lead, tail, closing, ends, before.strip() or None, thought_end, thinking)


def _text_before(tail: str, token: int, tokenizer: Any) -> str:
    """Return the part of a text before a token of the tokenizer's own."""
    return tail.partition(str(tokenizer.convert_ids_to_tokens(token)))[0]


def exported_template(source: str, frame: AnswerFrame) -> str:
    """Complete a chat template so that its generation prompt is the prompt of the training."""
    if frame.thinking is not None:
        value = str(frame.thinking).lower()
        head = "{%- if enable_thinking is not defined %}{%- set enable_thinking = " + value + " %}{%- endif %}"
        source = source if source.startswith(head) else head + source
    if frame.lead:
        text = "".join(f"\\u{ord(c):04x}" if ord(c) < 0x10000 and not c.isalnum() else c for c in frame.lead)
        source += '{%- if add_generation_prompt %}{{- "' + text + '" }}{%- endif %}'
    return source
