"""The row: one training example in the form that every row format is converted to, with its place of origin."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

Asks = Literal["user", "observation", "nobody"]
Answers = Literal["assistant", "call"]


class Turn(NamedTuple):
    """Hold one turn of a dialogue.

    Attributes:
        role: The speaker: user, observation (a tool's result), assistant, or call (the assistant calls a tool).
        text: What is said.
        learn: Whether an answer is learnt; meaningless for other turns.
        reasoning: What the assistant thinks before it answers; may be empty.
        results: The results of several tools, which `text` joins; empty for one.
    """

    role: Asks | Answers
    text: str
    learn: bool = True
    reasoning: str = ""
    results: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """Hold one example and its place of origin, which later errors refer to.

    Attributes:
        instruction: The last question.
        input: Context of the question; may be empty.
        output: The answer to learn.
        task: Task that the row itself names; None where it names none.
        file: The file (or data set) as the user named it.
        line: Line on which the row begins in text files, element of a JSON list, row number elsewhere; from 1.
        system: The system message; may be empty.
        tools: The tools the assistant may call, as JSON; may be empty.
        history: Earlier turns, questions and answers alternating; empty or of even length.
        asks: Who speaks before the last answer; nobody for plain text, which is learnt whole and without a template.
        answers: Whether the last answer is text or calls a tool.
        learn: Whether the last answer is learnt.
        choices: Permitted answers of a multiple-choice question; empty otherwise.
        label: Class of the row, for stratified batches; None where it has none.
        group: What rows have in common that belong on one side of a split; None where it has none.
        difficulty: How hard it is, for a curriculum; None where no column says so.
        ends: Whether a plain text ends here, instead of going on in the next row.
        reasoning: What the assistant thinks before the last answer; may be empty.
        results: The results of several tools before the last answer, which `instruction` joins; empty for one.
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
    group: str | None = None
    difficulty: float | None = None
    ends: bool = True
    reasoning: str = ""
    results: tuple[str, ...] = ()

    @property
    def user_text(self) -> str:
        """Instruction and input, joined by a line break unless one is empty."""
        return "\n".join(part for part in (self.instruction, self.input) if part)

    @property
    def place(self) -> str:
        """Where the row stands, for error sentences."""
        return row_place(self.file, self.line)

    @property
    def turns(self) -> list[tuple[Turn, Turn]]:
        """All pairs of question and answer, the last one included."""
        question = Turn(self.asks, self.user_text, results=self.results)
        last = (question, Turn(self.answers, self.output, self.learn, self.reasoning))
        return [*zip(self.history[::2], self.history[1::2], strict=True), last]


BLANKS = re.compile(r"[ \t\n\r\f\v]+")
"""What parts words; other blanks, such as the one in `10 000` that does not break, are letters of a word."""


def words_of(text: str) -> list[str]:
    """Split a text into words."""
    return [word for word in BLANKS.split(text) if word]


UNITS = {".json": "element", ".parquet": "row", ".arrow": "row", "": "row"}
"""What a file consists of, by its extension; any other of lines."""


def row_place(file: str, line: int) -> str:
    """Name a row by file and line (element, row), for error sentences."""
    return f"`{file}`, {UNITS.get(Path(file).suffix.lower(), 'line')} {line}"
