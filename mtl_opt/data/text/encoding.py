"""Rows to tokens: what of a row is learnt, and how a long one is cut."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate

from transformers import PreTrainedTokenizerBase

from mtl_opt.data.read.rows import Row
from mtl_opt.data.text.chat_template import no_prefix
from mtl_opt.data.text.head_rows import encode_for_heads
from mtl_opt.data.text.templates import Template
from mtl_opt.data.text.tokens import (
    EncodedRow,
    Part,
    Segment,
    Tokens,
    cut,
    kinds_of_tokens,
    merged,
    opening_ids,
    tokenise,
)
from mtl_opt.errors import InputError

CHUNK = 1000
"""Rows tokenised in one call: enough to keep all cores busy, few enough that what lies around them stays small."""


@dataclass(frozen=True)
class Encoder:
    """Make tokens of rows.

    Attributes:
        tokenizer: Any tokenizer of transformers; a fast one is quick.
        template: What stands around what is asked and answered.
        cutoff_len: Largest number of tokens of a row, at least 2.
        prefix: Text on a line of its own before the first thing asked; `{task}` in it is the row's task.
        task: Task of rows that name none themselves.
        mask_history: Whether only the last answer of a dialogue is learnt.
        learn_prompt: Whether what is asked is learnt too.
        allow_cutting: Whether a row that is too long is cut; otherwise it is an error.
        heads: What an answer is of tasks that a head answers: "row" (one value per row) or "words" (one label per
            word). Their rows are what is asked alone, with the tokenizer's own tokens around it and no template.

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
    heads: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.cutoff_len < 2:
            raise InputError(
                f"`cutoff_len` must be at least 2 (a token to see and one to learn), got {self.cutoff_len}."
            )

    @cached_property
    def filled(self) -> Template:
        """The template with the tokenizer's own marks."""
        return self.template.filled(self.tokenizer)

    @cached_property
    def opening(self) -> list[int]:
        """Tokens that come before everything; a chat template writes them itself."""
        if self.template.joined:
            return []
        own = opening_ids(self.tokenizer)
        bos = self.tokenizer.bos_token_id
        return own or ([bos] if self.template.opens and bos is not None else [])

    @cached_property
    def text_opening(self) -> list[int]:
        """Token that comes before plain text, so that its first token has something to follow."""
        own = opening_ids(self.tokenizer)
        found = [self.tokenizer.eos_token_id, self.tokenizer.bos_token_id, self.tokenizer.pad_token_id]
        return own or [next(token for token in found if token is not None)]

    def encode(self, rows: Sequence[Row]) -> list[EncodedRow]:
        """Tokenise rows and cut those that are too long.

        Args:
            rows: The rows.

        Returns:
            The tokens of each row, with labels.
        """
        return [tokens.row() for chunk in self.chunks(rows) for tokens in chunk]

    def chunks(self, rows: Sequence[Row]) -> Iterator[list[Tokens]]:
        """Tokenise rows in chunks.

        Args:
            rows: The rows.

        Yields:
            The tokens of the next rows.
        """
        for start in range(0, len(rows), CHUNK):
            yield self.encode_chunk(rows[start : start + CHUNK])

    def encode_chunk(self, rows: Sequence[Row]) -> list[Tokens]:
        """Tokenise rows in one call of the tokenizer.

        Args:
            rows: The rows.

        Returns:
            The tokens of each row.
        """
        return encode_for_heads(self, rows) if self.heads else self.encode_answered(rows)

    def encode_answered(self, rows: Sequence[Row]) -> list[Tokens]:
        """Tokenise rows whose answers are text.

        Args:
            rows: The rows.

        Returns:
            The tokens of each row.

        Raises:
            InputError: If template and tokenizer do not go together, or a row is too long and must not be cut.
        """
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
                found.append(cut(self.parts(row, opening, mine), self.cutoff_len, row.place))
            else:
                raise InputError(
                    f"{row.place}: the row has {num_tokens} tokens, `cutoff_len` is {self.cutoff_len} and `truncation` "
                    "is error."
                )
        return found

    def prompt(self, row: Row) -> list[int]:
        """Tokenise what comes before the last answer, to generate from: the tokens that `encode` puts before it.

        Args:
            row: The row; its last answer is not looked at.

        Returns:
            Token ids; a prompt that is too long is cut in the order of a row.
        """
        texts = self.texts(row)[:-1]
        ids = self.token_lists([row], [texts])
        opening = self.text_opening if row.asks == "nobody" else self.opening
        whole = opening + [token for part in ids for token in part]
        if len(whole) <= self.cutoff_len:
            return whole
        # One more token than fits stands for the answer that is to come.
        answer = Segment([-1], ["answer"], True)
        return cut([*self.parts(row, opening, ids), answer], self.cutoff_len + 1, row.place).ids[:-1]

    def stop_text(self) -> str | None:
        """Give the text at which a generated answer ends.

        Returns:
            The text; None where the eos token alone ends it.
        """
        return self.template.stop_text(self.tokenizer)

    def texts(self, row: Row) -> list[str]:
        """Give what is asked and what answers it in turn, as it is tokenised; plain text has nothing that is asked.

        Args:
            row: The row.

        Returns:
            The texts.
        """
        if row.asks == "nobody":
            return ["", row.output + str(self.tokenizer.eos_token or "")]
        return self.filled.segments(row, self.prefix_of(row), self.learnt(row))

    def learnt(self, row: Row) -> list[bool]:
        """Tell which answers are learnt.

        Args:
            row: The row.

        Returns:
            One truth value per answer.
        """
        earlier = [turn.learn and not self.mask_history for turn in row.history[1::2]]
        return [*earlier, row.learn]

    def prefix_of(self, row: Row) -> str:
        """Write the row's task into the prefix."""
        if not self.prefix:
            return ""
        return self.prefix.replace("{task}", row.task or self.task or "").rstrip("\n") + "\n"

    def token_lists(self, rows: Sequence[Row], all_texts: Sequence[Sequence[str]]) -> list[list[int]]:
        """Tokenise the texts of rows; with a joined template every text as it continues the ones before it."""
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
                    raise no_prefix(row)
                found.append(mine[len(before) :])
                before = [] if alone else mine
            start += len(texts)
        return found

    def check_tokens(self, row: Row, ids: Sequence[Sequence[int]]) -> None:
        """Refuse a row whose prompt or answer has no token."""
        if row.asks != "nobody" and not (ids[0] or self.opening):
            raise self.no_token(row, "prompt")
        if not all(ids[1::2]):
            raise self.no_token(row, "answer")

    def no_token(self, row: Row, part: str) -> InputError:
        """Build the error for a text that the tokenizer makes nothing of."""
        return InputError(
            f"{row.place}: the tokenizer makes no token of the {part} in template `{self.template.name}`."
        )

    def joined(self, row: Row, opening: list[int], ids: Sequence[list[int]]) -> tuple[list[int], tuple[int, ...]]:
        """Join the tokens of a row that fits, and tell what of them is learnt."""
        if len(ids) == 2 and row.learn and not self.learn_prompt:
            whole = opening + ids[0]
            begin = len(whole)
            whole = whole + ids[1]
            return whole, (begin, len(whole))
        whole, spans = list(opening), list[int]()
        for tokens, learn in zip(ids, self.learnt_texts(row, len(ids)), strict=True):
            if learn and tokens:
                spans += [len(whole), len(whole) + len(tokens)]
            whole += tokens
        return whole, merged(spans)

    def learnt_texts(self, row: Row, num_texts: int) -> list[bool]:
        """Tell which of the texts are learnt; `num_texts` may leave the last answer out."""
        answers = self.learnt(row)
        if (num_texts + 1) // 2 != len(answers):  # the template folded what is not learnt
            answers = [*(learn for learn in answers[:-1] if learn), answers[-1]]
        return [learn for answer in answers for learn in (self.learn_prompt, answer or self.learn_prompt)][:num_texts]

    def parts(self, row: Row, opening: list[int], ids: Sequence[list[int]]) -> list[Segment]:
        """Find the kind of every token of a row that is to be cut."""
        if row.asks == "nobody":
            parts = [[], [Part(self.texts(row)[1], "answer")]]
        else:
            parts = self.filled.parts(row, self.prefix_of(row), self.learnt(row))
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
    """Tokenise rows and cut those that are too long, with every answer learnt.

    Args:
        rows: The rows.
        tokenizer: Any tokenizer of transformers; a fast one is quick.
        template: What stands around what is asked and answered.
        cutoff_len: Largest number of tokens of a row, at least 2.

    Returns:
        The tokens of each row.
    """
    return Encoder(tokenizer, template, cutoff_len).encode(rows)
