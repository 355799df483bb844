"""What every row format becomes: one example with its dialogue, and where it was written."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

Asks = Literal["user", "observation", "nobody"]
Answers = Literal["assistant", "call"]


class Turn(NamedTuple):
    """Hold one earlier turn of a dialogue.

    Attributes:
        role: Who speaks: user, observation (what a tool gave back), assistant, or call (an assistant calls a tool).
        text: What is said.
        learn: Whether an answer is learnt; without meaning for the others.
    """

    role: Asks | Answers
    text: str
    learn: bool = True


@dataclass(frozen=True, slots=True)
class Row:
    """Hold one example and where it was written, so that every later error can point at it.

    Attributes:
        instruction: What is asked last.
        input: What it is asked about; empty where the instruction says it all.
        output: The answer to learn.
        task: The row's own name of its task; None where it has none.
        file: The file (or data set) as the user named it.
        line: Line in texts (that of the row's beginning), index of the element in JSON, of the row elsewhere; from 1.
        system: What the assistant is told to be; empty where nothing is said.
        tools: The tools it may call, as JSON; empty where there are none.
        history: Earlier turns; empty or an even number, asked and answered in turn.
        asks: Who speaks last before the answer; nobody for plain text, which is learnt whole and without a template.
        answers: Whether the answer is said or calls a tool.
        learn: Whether the last answer is learnt.
        choices: The answers to choose from; empty where the answer is free.
        label: The class, for stratified batches; None where there is none.
    """

    instruction: str
    input: str
    output: str
    task: str | None
    file: str
    line: int
    system: str = ""
    tools: str = ""
    history: tuple[Turn, ...] = ()
    asks: Asks = "user"
    answers: Answers = "assistant"
    learn: bool = True
    choices: tuple[str, ...] = ()
    label: str | None = None

    @property
    def user_text(self) -> str:
        """Join instruction and input by a line break, without the part that is empty."""
        return "\n".join(part for part in (self.instruction, self.input) if part)

    @property
    def place(self) -> str:
        """Say where the row stands, for error sentences."""
        return place(self.file, self.line)

    @property
    def turns(self) -> list[tuple[Turn, Turn]]:
        """Pair what is asked with its answer, the last pair at the end."""
        last = (Turn(self.asks, self.user_text), Turn(self.answers, self.output, self.learn))
        return [*zip(self.history[::2], self.history[1::2], strict=True), last]


UNITS = {".json": "element", ".jsonl": "line", ".csv": "line", ".tsv": "line", ".txt": "line"}


def place(file: str, line: int) -> str:
    """Name a row of a file in the words of its format."""
    return f"`{file}`, {UNITS.get(Path(file).suffix.lower(), 'row')} {line}"
