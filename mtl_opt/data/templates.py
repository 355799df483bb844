"""Row to tokens: what stands around a user's text and behind an answer."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from mtl_opt.data.formats import Row
from mtl_opt.data.tokens import EncodedRow, Prompt, cut_prompt, fit, opening_ids, tokenise
from mtl_opt.errors import InputError, UnknownNameError

CHUNK = 1000
"""Rows tokenised in one call: enough to keep all cores busy, few enough that what lies around them stays small."""

PROBE = "mtlopttextofuser"
"""Stands for a user's text where a chat template is asked what it puts around one."""


class Template(ABC):
    """Say what stands around a user's text and behind an answer.

    Attributes:
        name: The template's name in the configuration.
        stop: Text at which a generated answer ends; None where the eos token alone ends it, or where the tokenizer
            decides. `stop_text` answers for every template.
        joined: Whether prompt and answer are tokenised as one text, as chat models were trained, or apart.
    """

    name: str
    stop: str | None
    joined: bool

    @abstractmethod
    def frame(self, tokenizer: PreTrainedTokenizerBase) -> tuple[str, str]:
        """Give the texts before and after the user's text."""

    @abstractmethod
    def prompt_text(self, row: Row, tokenizer: PreTrainedTokenizerBase) -> str:
        """Give the text up to where the answer begins."""

    @abstractmethod
    def answer_text(self, row: Row, tokenizer: PreTrainedTokenizerBase) -> str:
        """Give the text to learn: the answer and what ends it."""

    @abstractmethod
    def stop_text(self, tokenizer: PreTrainedTokenizerBase) -> str | None:
        """Give the text at which a generated answer ends; None where the eos token alone ends it."""

    def encode(self, row: Row, tokenizer: PreTrainedTokenizerBase, cutoff_len: int) -> EncodedRow:
        """Tokenise one row; `encode_rows` is the quick way for many.

        Args:
            row: The row.
            tokenizer: Any tokenizer of transformers.
            cutoff_len: Largest number of tokens, at least 2.

        Returns:
            The row's tokens.
        """
        return encode_rows([row], tokenizer, self, cutoff_len)[0]

    def encode_prompt(self, row: Row, tokenizer: PreTrainedTokenizerBase, cutoff_len: int) -> list[int]:
        """Tokenise the prompt of one row, to generate from: the tokens that `encode` puts before the answer.

        Args:
            row: The row; its answer is not looked at.
            tokenizer: Any tokenizer of transformers.
            cutoff_len: Largest number of tokens; a longer prompt is cut from the left of the user's text.

        Returns:
            Token ids of the prompt.
        """
        (prompt,) = encode_prompts([row], tokenizer, self, self.frame(tokenizer))
        return cut_prompt(prompt, cutoff_len, tokenizer)


@dataclass(frozen=True)
class TextTemplate(Template):
    """Put fixed texts around the user's text and behind the answer; `{eos}` in them is the tokenizer's eos token."""

    name: str
    before: str
    after: str
    end: str
    stop: str | None = None
    joined: bool = False

    def frame(self, tokenizer: PreTrainedTokenizerBase) -> tuple[str, str]:
        """Give the texts before and after the user's text."""
        return self.filled(self.before, tokenizer), self.filled(self.after, tokenizer)

    def prompt_text(self, row: Row, tokenizer: PreTrainedTokenizerBase) -> str:
        """Give the text up to where the answer begins."""
        before, after = self.frame(tokenizer)
        return before + row.user_text + after

    def answer_text(self, row: Row, tokenizer: PreTrainedTokenizerBase) -> str:
        """Give the answer and what ends it."""
        return row.output + self.filled(self.end, tokenizer)

    def stop_text(self, tokenizer: PreTrainedTokenizerBase) -> str | None:  # noqa: ARG002 - the text is fixed
        """Give the template's own `stop`."""
        return self.stop

    def filled(self, text: str, tokenizer: PreTrainedTokenizerBase) -> str:
        """Write the eos token into a text of the template."""
        if "{eos}" not in text:
            return text
        if tokenizer.eos_token_id is None:
            raise InputError(f"Template `{self.name}` needs an eos token, and the tokenizer has none; try `chatml`.")
        return text.replace("{eos}", str(tokenizer.eos_token))


@dataclass(frozen=True)
class ChatTemplate(Template):
    """Use the chat template that comes with the tokenizer."""

    name: str
    stop: str | None = None
    joined: bool = True

    def frame(self, tokenizer: PreTrainedTokenizerBase) -> tuple[str, str]:
        """Give the texts before and after the user's text; both empty where the template does not show it as it is."""
        before, found, after = self.rendered([PROBE], tokenizer).partition(PROBE)
        return (before, after) if found and PROBE not in after else ("", "")

    def prompt_text(self, row: Row, tokenizer: PreTrainedTokenizerBase) -> str:
        """Give the text up to where the answer begins."""
        return self.rendered([row.user_text], tokenizer, f"{row.place}: ")

    def answer_text(self, row: Row, tokenizer: PreTrainedTokenizerBase) -> str:
        """Give what the template adds to the prompt when it knows the answer."""
        prompt = self.prompt_text(row, tokenizer)
        full = self.rendered([row.user_text, row.output], tokenizer, f"{row.place}: ")
        if not full.startswith(prompt):
            raise no_prefix(row)
        return full[len(prompt) :]

    def stop_text(self, tokenizer: PreTrainedTokenizerBase) -> str | None:
        """Find what the template puts behind an answer."""
        return self.rendered(["a", PROBE], tokenizer).rpartition(PROBE)[2].strip() or None

    def rendered(self, turns: Sequence[str], tokenizer: PreTrainedTokenizerBase, where: str = "") -> str:
        """Render a dialogue of a user's turn and perhaps an assistant's; without the latter, up to where it begins."""
        if not tokenizer.chat_template:
            raise InputError(f"Template `{self.name}` needs a chat template, and the tokenizer has none; try `chatml`.")
        messages = [{"role": r, "content": c} for r, c in zip(("user", "assistant"), turns, strict=False)]
        try:
            return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=len(turns) == 1)
        except (TemplateError, ValueError, TypeError) as error:
            raise InputError(f"{where}the tokenizer's chat template fails: {error}") from error


TEMPLATES: dict[str, Template] = {
    template.name: template
    for template in (
        TextTemplate("default", before="Human: ", after="{eos}\nAssistant:", end="{eos}\n"),
        TextTemplate(
            "alpaca",
            before="Below is an instruction that describes a task. "
            "Write a response that appropriately completes the request.\n\n### Instruction:\n",
            after="\n\n### Response:\n",
            end="{eos}\n\n",
        ),
        TextTemplate(
            "chatml",
            before="<|im_start|>user\n",
            after="<|im_end|>\n<|im_start|>assistant\n",
            end="<|im_end|>\n",
            stop="<|im_end|>",
        ),
        ChatTemplate("tokenizer"),
    )
}


def get_template(name: str) -> Template:
    """Find a template.

    Args:
        name: A key of `TEMPLATES`.

    Returns:
        The template.

    Raises:
        InputError: If there is none of that name.
    """  # noqa: DOC501, DOC502 - ruff takes the function that builds the error for its class
    if name not in TEMPLATES:
        raise UnknownNameError("template", name, TEMPLATES)
    return TEMPLATES[name]


def encode_rows(
    rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, template: Template, cutoff_len: int
) -> list[EncodedRow]:
    """Tokenise rows and cut those that are too long.

    A long row loses tokens from the left of the user's text, then from the left of the template around it, and from
    the right of the answer only where the answer alone does not fit.

    Args:
        rows: The rows.
        tokenizer: Any tokenizer of transformers; a fast one is quick.
        template: What stands around user's text and answer.
        cutoff_len: Largest number of tokens of a row, at least 2.

    Returns:
        The tokens of each row.

    Raises:
        InputError: If `cutoff_len` is below 2, or template and tokenizer do not go together.
    """
    if cutoff_len < 2:
        raise InputError(f"`cutoff_len` must be at least 2 (a token to see and one to learn), got {cutoff_len}.")
    frame = template.frame(tokenizer) if rows else ("", "")
    encoded: list[EncodedRow] = []
    for start in range(0, len(rows), CHUNK):
        chunk = rows[start : start + CHUNK]
        prompts = encode_prompts(chunk, tokenizer, template, frame)
        answers = encode_answers(chunk, prompts, tokenizer, template)
        encoded += [fit(prompt, answer, cutoff_len, tokenizer) for prompt, answer in zip(prompts, answers, strict=True)]
    return encoded


def encode_prompts(
    rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, template: Template, frame: tuple[str, str]
) -> list[Prompt]:
    """Tokenise the prompts of rows, whole; `frame` is the template's."""
    # A chat template writes the tokens that open a text itself.
    opening = [] if template.joined else opening_ids(tokenizer)
    texts = [template.prompt_text(row, tokenizer) for row in rows]
    return [
        Prompt(text, opening + ids, len(opening), encoding, frame)
        for text, (ids, encoding) in zip(texts, tokenise(texts, tokenizer), strict=True)
    ]


def encode_answers(
    rows: Sequence[Row], prompts: Sequence[Prompt], tokenizer: PreTrainedTokenizerBase, template: Template
) -> list[list[int]]:
    """Tokenise the answers of rows, whole."""
    texts = [template.answer_text(row, tokenizer) for row in rows]
    if template.joined:
        texts = [prompt.text + text for prompt, text in zip(prompts, texts, strict=True)]
    answers = [ids for ids, _ in tokenise(texts, tokenizer)]
    for i, (row, prompt) in enumerate(zip(rows, prompts, strict=True)):
        if template.joined:
            if answers[i][: len(prompt.ids)] != prompt.ids:
                raise no_prefix(row)
            answers[i] = answers[i][len(prompt.ids) :]
        if not prompt.ids or not answers[i]:
            part = "answer" if prompt.ids else "prompt"
            raise InputError(f"{row.place}: the tokenizer makes no token of the {part} in template `{template.name}`.")
    return answers


def no_prefix(row: Row) -> InputError:
    """Build the error for a chat template that writes the same prompt in two ways."""
    return InputError(
        f"{row.place}: with the tokenizer's chat template the prompt is not a token prefix of prompt and answer, so "
        "what is learnt is not what is generated; choose another `template`."
    )
