"""Templates: the text around questions and answers."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from transformers import PreTrainedTokenizerBase

from mtl_opt.data.read.rows import Row, Turn
from mtl_opt.data.text.answer_frame import AnswerFrame, frame_of
from mtl_opt.data.text.tokens import Part
from mtl_opt.errors import InputError

TOOLS = 'Tools that can be called by answering with {"name": ..., "arguments": {...}}:\n'
"""Introduces the tools of a row, after the system message."""


class Template(ABC):
    """Define the text around questions and answers.

    Attributes:
        name: Name of the template in the configuration.
        joined: Whether prompt and answer are tokenised as one text, as chat models were trained, or separately.
        opens: Whether a beginning-of-sequence token comes first even where the tokenizer itself adds none.
        thinking: Value of `enable_thinking` where the template knows it.
    """

    name: str
    joined: bool
    opens: bool
    thinking: bool | None

    @abstractmethod
    def filled(self, tokenizer: PreTrainedTokenizerBase) -> "Template":
        """Bind the template to a tokenizer, which all other methods need."""

    @abstractmethod
    def segments(self, row: Row, prefix: str, learn: Sequence[bool]) -> list[str]:
        """Return questions and answers in turn, with `prefix` before the first question.

        Answers that are not learnt may be folded into the next question: there are two texts per learnt answer.
        """

    @abstractmethod
    def parts(self, row: Row, prefix: str, learn: Sequence[bool]) -> list[list[Part]]:
        """Return the same texts, each split into parts of known kind."""

    @abstractmethod
    def frame(self, tokenizer: PreTrainedTokenizerBase) -> AnswerFrame:
        """Return what the filled template writes around an answer."""

    @abstractmethod
    def thinking_as(self, thinking: bool | None) -> "Template":
        """Set `enable_thinking`, or refuse it."""


@dataclass(frozen=True)
class TextTemplate(Template):
    """Surround questions and answers with fixed texts, in which `{eos}` and `{bos}` are the tokenizer's tokens.

    Attributes:
        name: Name of the template.
        before: Text before a question.
        after: Text after a question, up to where the answer begins.
        end: Text after an answer.
        system: Texts before and after the system message.
        default_system: System message of rows without one.
        observation: Texts before and after a tool's result; None for those of a question.
        between: Text between the results of several tools.
        fused: Whether the system message stands within the first question instead of before it.
        again: Text before every question but the first.
        context: Text between an instruction and its input.
        opens: Whether a beginning-of-sequence token comes first even where the tokenizer itself adds none.
        joined: False: prompt and answer are tokenised separately.
        thinking: None: the texts are fixed.
    """

    name: str
    before: str
    after: str
    end: str
    system: tuple[str, str] = ("", "\n")
    default_system: str = ""
    observation: tuple[str, str] | None = None
    between: str = "\n"
    fused: bool = False
    again: str = ""
    context: str = "\n"
    opens: bool = False
    joined: bool = False
    thinking: None = None

    def filled(self, tokenizer: PreTrainedTokenizerBase) -> "TextTemplate":
        """Substitute eos and bos in the texts."""
        texts: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        needs_eos = any("{eos}" in str(text) for text in texts.values())
        if needs_eos and tokenizer.eos_token_id is None:
            raise InputError(f"Template `{self.name}` needs an eos token, and the tokenizer has none; try `chatml`.")
        eos, bos = (str(tokenizer.eos_token), str(tokenizer.bos_token or ""))

        def write(text: Any) -> Any:
            if isinstance(text, tuple):
                return tuple(map(write, text))
            return text.replace("{eos}", eos).replace("{bos}", bos) if isinstance(text, str) else text

        return replace(self, **{name: write(text) for name, text in texts.items() if name != "name"})

    def segments(self, row: Row, prefix: str, learn: Sequence[bool]) -> list[str]:
        """Return questions and answers in turn."""
        if any(answer.reasoning for _, answer in row.turns):
            raise no_reasoning(row, f"template: {self.name}")
        # Most rows are a single question: no need to split it into parts.
        if not row.history and not row.system and not row.tools and row.asks == "user" and not self.default_system:
            return [f"{self.before}{prefix}{row.user_text}{self.after}", row.output + self.end]
        return ["".join(part.text for part in parts) for parts in self.parts(row, prefix, learn)]

    def parts(self, row: Row, prefix: str, learn: Sequence[bool]) -> list[list[Part]]:
        """Return the same texts, each split into parts of known kind."""
        found: list[list[Part]] = []
        turns = row.turns
        if row.instruction and row.input:
            asked_last = turns[-1][0]._replace(text=f"{row.instruction}{self.context}{row.input}")
            turns[-1] = (asked_last, turns[-1][1])
        for number, (question, answer) in enumerate(turns):
            last = number == len(turns) - 1
            asked = self.asked(question, "question" if last else "history", prefix if number == 0 else "")
            if number == 0:
                asked[self.fused : self.fused] = self.system_parts(row)
            elif self.again:
                asked.insert(0, Part(self.again, "frame"))
            found += [asked, [Part(answer.text + self.end, "answer" if learn[number] else "history")]]
        return found

    def asked(self, question: Turn, kind: str, prefix: str) -> list[Part]:
        """Surround a question with the texts of its role."""
        before, after = self.before, self.after
        if question.role == "observation" and self.observation is not None:
            before, after = self.observation
        text = self.between.join(question.results) if question.results else question.text
        return [Part(before, "frame"), Part(prefix, "frame"), Part(text, kind), Part(after, "frame")]

    def system_parts(self, row: Row) -> list[Part]:
        """Return the system message followed by the row's tools; nothing where there is neither."""
        before, after = self.system
        said = Part(row.system, "system") if row.system else Part(self.default_system, "frame")
        if not said.text and not row.tools:
            return []
        gap = Part("\n\n" if said.text and row.tools else "", "tools")
        tools = [gap, Part(TOOLS, "tools"), Part(row.tools, "tools")] if row.tools else []
        return [Part(before, "frame"), said, *tools, Part(after, "frame")]

    def frame(self, tokenizer: PreTrainedTokenizerBase) -> AnswerFrame:
        """Return what the filled template writes around an answer."""
        return frame_of(self.end, tokenizer)

    def thinking_as(self, thinking: bool | None) -> "TextTemplate":
        """Refuse `enable_thinking`: the texts are fixed."""
        if thinking is not None:
            raise InputError(
                f"`enable_thinking`: template `{self.name}` has fixed texts that do not know it; remove the key, or "
                "set `template: tokenizer` with a tokenizer whose chat template knows it."
            )
        return self


def no_reasoning(row: Row, name: str) -> InputError:
    """Build the error for reasoning that a template would leave out."""
    return InputError(
        f"{row.place}: `{name}` has no place for the reasoning of an answer; set `template: tokenizer` with a "
        "tokenizer whose chat template has one, write the reasoning into the answer, or take it out of the row."
    )
