"""Row to text: what stands around what is asked and behind an answer."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from transformers import PreTrainedTokenizerBase

from mtl_opt.data.read.rows import Row, Turn
from mtl_opt.data.text.tokens import Part
from mtl_opt.errors import InputError

TOOLS = 'Tools that can be called by answering with {"name": ..., "arguments": {...}}:\n'
"""Stands before the tools of a row, behind what the system says."""


class Template(ABC):
    """Say what stands around what is asked and behind an answer.

    Attributes:
        name: The template's name in the configuration.
        joined: Whether prompt and answer are tokenised as one text, as chat models were trained, or apart.
        opens: Whether a beginning of sequence comes first even where the tokenizer adds none by itself.
    """

    name: str
    joined: bool
    opens: bool

    @abstractmethod
    def filled(self, tokenizer: PreTrainedTokenizerBase) -> "Template":
        """Write the tokenizer's own marks into the texts; what is asked of a template comes after that."""

    @abstractmethod
    def segments(self, row: Row, prefix: str, learn: Sequence[bool]) -> list[str]:
        """Give what is asked and what answers it in turn; `prefix` comes before the first thing asked.

        Answers that are not learnt may be folded into what is asked: there are two texts per answer that is.
        """

    @abstractmethod
    def parts(self, row: Row, prefix: str, learn: Sequence[bool]) -> list[list[Part]]:
        """Give the same, and of what kind each piece of it is."""

    @abstractmethod
    def stop_text(self, tokenizer: PreTrainedTokenizerBase) -> str | None:
        """Give the text at which a generated answer ends; None where the eos token alone ends it."""


@dataclass(frozen=True)
class TextTemplate(Template):
    """Put fixed texts around; `{eos}` and `{bos}` in them are the tokenizer's tokens.

    Attributes:
        name: The template's name.
        before: Before what a user says.
        after: Behind it, up to where the answer begins.
        end: Behind an answer.
        system: Around what the system says.
        default_system: What it says where the row says nothing.
        observation: Around what a tool gave back; None: as what a user says.
        fused: Whether the system's words stand within the first thing asked instead of before it.
        again: Before everything asked but the first.
        stop: Text at which a generated answer ends; None where the eos token alone ends it.
        opens: Whether a beginning of sequence comes first even where the tokenizer adds none by itself.
        joined: Prompt and answer are tokenised apart.
    """

    name: str
    before: str
    after: str
    end: str
    system: tuple[str, str] = ("", "\n")
    default_system: str = ""
    observation: tuple[str, str] | None = None
    fused: bool = False
    again: str = ""
    stop: str | None = None
    opens: bool = False
    joined: bool = False

    def filled(self, tokenizer: PreTrainedTokenizerBase) -> "TextTemplate":
        """Write eos and bos into the texts."""
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
        """Give what is asked and what answers it in turn."""
        if not row.history and not row.system and not row.tools and row.asks == "user" and not self.default_system:
            return [f"{self.before}{prefix}{row.user_text}{self.after}", row.output + self.end]
        return ["".join(part.text for part in parts) for parts in self.parts(row, prefix, learn)]

    def parts(self, row: Row, prefix: str, learn: Sequence[bool]) -> list[list[Part]]:
        """Give the same, and of what kind each piece of it is."""
        found: list[list[Part]] = []
        turns = row.turns
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
        """Put the texts of its role around what is asked."""
        before, after = self.before, self.after
        if question.role == "observation" and self.observation is not None:
            before, after = self.observation
        return [Part(before, "frame"), Part(prefix, "frame"), Part(question.text, kind), Part(after, "frame")]

    def system_parts(self, row: Row) -> list[Part]:
        """Give what the system says, with the row's tools behind it; nothing where it says nothing."""
        before, after = self.system
        said = Part(row.system, "system") if row.system else Part(self.default_system, "frame")
        if not said.text and not row.tools:
            return []
        gap = Part("\n\n" if said.text and row.tools else "", "tools")
        tools = [gap, Part(TOOLS, "tools"), Part(row.tools, "tools")] if row.tools else []
        return [Part(before, "frame"), said, *tools, Part(after, "frame")]

    def stop_text(self, tokenizer: PreTrainedTokenizerBase) -> str | None:  # noqa: ARG002 - the text is fixed
        """Give the template's own `stop`."""
        return self.stop
