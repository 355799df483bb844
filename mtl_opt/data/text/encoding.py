"""The encoder: tokenises rows, marks what of each is learnt, and truncates long ones."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate

from transformers import PreTrainedTokenizerBase

from mtl_opt.data.read.rows import Row
from mtl_opt.data.text.answer_frame import AnswerFrame
from mtl_opt.data.text.blocks import block_rows
from mtl_opt.data.text.chat_template import prefix_error
from mtl_opt.data.text.head_rows import HeadEncoder
from mtl_opt.data.text.templates import Template
from mtl_opt.data.text.tokens import (
    EncodedRow,
    Part,
    Segment,
    Tokens,
    cut_row,
    kinds_of_tokens,
    merge_spans,
    opening_ids,
    tokenise,
)
from mtl_opt.errors import InputError

CHUNK = 1000
"""Rows tokenised in one call: enough to keep all cores busy, few enough that temporary objects stay small."""


@dataclass(frozen=True)
class Encoder:
    """Tokenise rows.

    Attributes:
        tokenizer: Any tokenizer of transformers; a fast one is much quicker.
        template: Template around questions and answers.
        cutoff_len: Largest number of tokens of a row, at least 2.
        prefix: Text on a line of its own before the first question; `{task}` in it becomes the row's task.
        task: Task of rows that name none themselves.
        mask_history: Whether only the last answer of a dialogue is learnt.
        learn_prompt: Whether questions are learnt too.
        allow_cutting: Whether rows that are too long are truncated; otherwise they raise.
        blocks: Whether plain text that is too long becomes several rows instead of losing its tail.
        heads: Kind of target, per task that a head answers: "row" (one per row) or "words" (one label per word). Of
            their rows only the question is tokenised, with the tokenizer's own marks and no template.

    Raises:
        InputError: If `cutoff_len` is below 2.
    """

    tokenizer: PreTrainedTokenizerBase
    template: Template
    cutoff_len: int
    prefix: str = ""
    task: str | None = None
    mask_history: bool = False
    learn_prompt: bool = False
    allow_cutting: bool = True
    blocks: bool = False
    heads: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.cutoff_len < 2:
            raise InputError(
                f"`cutoff_len` must be at least 2 (a token to see and one to learn), got {self.cutoff_len}."
            )

    @cached_property
    def filled(self) -> Template:
        """The template, bound to the tokenizer."""
        return self.template.filled(self.tokenizer)

    @cached_property
    def opening(self) -> list[int]:
        """Tokens at the beginning of every row; a chat template writes them itself."""
        if self.template.joined:
            return []
        own = opening_ids(self.tokenizer)
        bos = self.tokenizer.bos_token_id
        return own or ([bos] if self.template.opens and bos is not None else [])

    @cached_property
    def text_opening(self) -> list[int]:
        """Tokens before plain text, at least one, so that its first token can be learnt."""
        own = opening_ids(self.tokenizer)
        found = [self.tokenizer.eos_token_id, self.tokenizer.bos_token_id, self.tokenizer.pad_token_id]
        return own or [next(token for token in found if token is not None)]

    def encode(self, rows: Sequence[Row]) -> list[EncodedRow]:
        """Tokenise rows, with labels."""
        return [tokens.row() for chunk in self.chunks(rows) for tokens in chunk]

    def chunks(self, rows: Sequence[Row]) -> Iterator[list[Tokens]]:
        """Tokenise rows in chunks of `CHUNK`."""
        for start in range(0, len(rows), CHUNK):
            yield self.encode_chunk(rows[start : start + CHUNK])

    def encode_chunk(self, rows: Sequence[Row]) -> list[Tokens]:
        """Tokenise rows in one call of the tokenizer per kind of answer.

        Args:
            rows: The rows, of any tasks.

        Returns:
            The tokens of each row, in the order of the rows.

        Raises:
            InputError: If a row is bad: without answer, without tokens, or too long where it may not be truncated.
        """
        if not self.heads:
            return self.encode_answered(rows)
        places: dict[str, list[int]] = {"text": [], "row": [], "words": []}
        for i, row in enumerate(rows):
            places[self.heads.get(row.task or self.task or "", "text")].append(i)
        for i in places["text"]:
            if not rows[i].output.strip():
                raise InputError(
                    f"{rows[i].place}: the answer is empty; only a task with a head may lack one in a row."
                )
        found: dict[int, Tokens] = {}
        for kind, own in places.items():
            found |= zip(own, self.encode_kind(kind, [rows[i] for i in own]), strict=True)
        return [found[i] for i in range(len(rows))]

    def encode_kind(self, kind: str, rows: Sequence[Row]) -> list[Tokens]:
        """Tokenise rows whose answers are all of one kind: "text", "row" or "words"."""
        if kind == "text":
            return self.encode_answered(rows)
        head = HeadEncoder(self.tokenizer, self.cutoff_len, self.allow_cutting)
        encode = head.encode_rows if kind == "row" else head.encode_words
        return encode(rows, [self.prefix_of(row) for row in rows])

    def encode_answered(self, rows: Sequence[Row]) -> list[Tokens]:
        """Tokenise rows whose answers are text."""
        all_texts = [self.texts(row) for row in rows]
        ids = self.token_lists(rows, all_texts)
        found, start = [], 0
        for row, texts in zip(rows, all_texts, strict=True):
            mine = ids[start : start + len(texts)]
            start += len(texts)
            self.check_tokens(row, mine)
            opening = self.text_opening if row.asks == "nobody" else self.opening
            num_tokens = len(opening) + sum(map(len, mine))
            if num_tokens <= self.cutoff_len:
                found.append(Tokens(*self.joined(row, opening, mine)))
            elif self.allow_cutting:
                found.append(cut_row(self.parts(row, opening, mine), self.cutoff_len, row.place))
            else:
                raise InputError(
                    f"{row.place}: the row has {num_tokens} tokens, `cutoff_len` is {self.cutoff_len} and `truncation` "
                    "is error."
                )
        return found

    def in_blocks(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Divide long plain texts into rows of at most `cutoff_len` tokens, where `blocks` says so."""
        if not self.blocks:
            yield from rows
            return
        room = self.cutoff_len - len(self.text_opening)
        for row in rows:
            headed = self.heads and self.heads.get(row.task or self.task or "")
            yield from [row] if headed else block_rows(row, self.tokenizer, room)

    def prompt(self, row: Row) -> list[int]:
        """Tokenise everything before the last answer, exactly as `encode` does, to generate from.

        Args:
            row: The row; its last answer is ignored.

        Returns:
            Token ids; a prompt that is too long is truncated like a row.
        """
        texts = self.texts(row)[:-1]
        ids = self.token_lists([row], [texts])
        opening = self.text_opening if row.asks == "nobody" else self.opening
        whole = opening + [token for part in ids for token in part]
        if len(whole) <= self.cutoff_len:
            return whole
        # `cut_row` needs an answer: a placeholder of one token stands for the one to come, and is dropped again.
        answer = Segment([-1], ["answer"], True)
        return cut_row([*self.parts(row, opening, ids), answer], self.cutoff_len + 1, row.place).ids[:-1]

    @cached_property
    def frame(self) -> AnswerFrame:
        """What the template writes around an answer, and what therefore ends it."""
        return self.filled.frame(self.tokenizer)

    def reference(self, row: Row) -> str:
        """Return what a generated answer is compared with: no reasoning, and calls as the template writes them."""
        if row.answers != "call" or row.asks == "nobody":
            return self.frame.answer(row.output)
        return self.frame.answer(self.texts(row)[-1].removesuffix(self.frame.closing).removesuffix(self.frame.tail))

    def texts(self, row: Row) -> list[str]:
        """Return questions and answers in turn, as they are tokenised; the question of plain text is empty."""
        if row.asks == "nobody":
            return ["", row.output + str(self.tokenizer.eos_token or "") * row.ends]
        texts = self.filled.segments(row, self.prefix_of(row), self.learnt(row))
        return [*texts[:-1], texts[-1] + self.frame.closing]

    def learnt(self, row: Row) -> list[bool]:
        """Return whether each answer is learnt."""
        earlier = [turn.learn and not self.mask_history for turn in row.history[1::2]]
        return [*earlier, row.learn]

    def prefix_of(self, row: Row) -> str:
        """Return the prefix with the row's task, and a line break at its end."""
        if not self.prefix:
            return ""
        return self.prefix.replace("{task}", row.task or self.task or "").rstrip("\n") + "\n"

    def token_lists(self, rows: Sequence[Row], all_texts: Sequence[Sequence[str]]) -> list[list[int]]:
        """Tokenise the texts of rows; with a joined template, each text as the continuation of the ones before it."""
        if not self.template.joined:
            return tokenise([text for texts in all_texts for text in texts], self.tokenizer)
        plain = [row.asks == "nobody" for row in rows]
        grown = [texts if alone else list(accumulate(texts)) for alone, texts in zip(plain, all_texts, strict=True)]
        ids = tokenise([text for texts in grown for text in texts], self.tokenizer)
        found, start = [], 0
        for row, alone, texts in zip(rows, plain, grown, strict=True):
            before: list[int] = []
            for mine in ids[start : start + len(texts)]:
                if mine[: len(before)] != before:
                    raise prefix_error(row)
                found.append(mine[len(before) :])
                before = [] if alone else mine
            start += len(texts)
        return found

    def check_tokens(self, row: Row, ids: Sequence[Sequence[int]]) -> None:
        """Raise if the prompt or an answer of a row has no tokens."""
        if row.asks != "nobody" and not (ids[0] or self.opening):
            raise self.no_token(row, "prompt")
        if not all(ids[1::2]):
            raise self.no_token(row, "answer")

    def no_token(self, row: Row, part: str) -> InputError:
        """Build the error for a text without tokens."""
        return InputError(
            f"{row.place}: the tokenizer makes no token of the {part} in template `{self.template.name}`."
        )

    def joined(self, row: Row, opening: list[int], ids: Sequence[list[int]]) -> tuple[list[int], tuple[int, ...]]:
        """Concatenate the tokens of a row that fits, and return them with the learnt spans."""
        if len(ids) == 2 and row.learn and not self.learn_prompt:  # most rows: one question, one answer
            whole = opening + ids[0]
            begin = len(whole)
            whole = whole + ids[1]
            return whole, (begin, len(whole))
        whole, spans = list(opening), list[int]()
        for tokens, learn in zip(ids, self.learnt_texts(row, len(ids)), strict=True):
            if learn and tokens:
                spans += [len(whole), len(whole) + len(tokens)]
            whole += tokens
        return whole, merge_spans(spans)

    def learnt_texts(self, row: Row, num_texts: int) -> list[bool]:
        """Return whether each text is learnt; `num_texts` may leave the last answer out."""
        answers = self.learnt(row)
        if (num_texts + 1) // 2 != len(answers):  # the template folded what is not learnt
            answers = [*(learn for learn in answers[:-1] if learn), answers[-1]]
        return [learn for answer in answers for learn in (self.learn_prompt, answer or self.learn_prompt)][:num_texts]

    def parts(self, row: Row, opening: list[int], ids: Sequence[list[int]]) -> list[Segment]:
        """Return the segments of a row that is to be truncated, with the kind of every token."""
        if row.asks == "nobody":
            parts = [[], [Part(self.texts(row)[1], "answer")]]
        else:
            parts = self.filled.parts(row, self.prefix_of(row), self.learnt(row))
            parts[-1].append(Part(self.frame.closing, parts[-1][-1].kind))
        found = []
        learnt = self.learnt_texts(row, len(ids))
        for tokens, pieces, learn in zip(ids, parts, learnt, strict=False):  # a prompt lacks the last answer
            kinds = kinds_of_tokens(pieces, tokens, self.tokenizer) if len(pieces) > 1 else []
            if len(kinds) != len(tokens):
                kinds = [pieces[0].kind if pieces else "frame"] * len(tokens)
            found.append(Segment(tokens, kinds, learn))
        found[0] = Segment(opening + found[0].ids, ["frame"] * len(opening) + found[0].kinds, found[0].learn)
        return found


def encode_rows(
    rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, template: Template, cutoff_len: int
) -> list[EncodedRow]:
    """Tokenise rows with an `Encoder` of default settings: every answer is learnt, long rows are truncated.

    Args:
        rows: The rows.
        tokenizer: Any tokenizer of transformers; a fast one is much quicker.
        template: Template around questions and answers.
        cutoff_len: Largest number of tokens of a row, at least 2.

    Returns:
        The tokens of each row, with labels.
    """
    return Encoder(tokenizer, template, cutoff_len).encode(rows)
