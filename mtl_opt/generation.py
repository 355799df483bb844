"""Answers of a trained model: prompts of any tasks in one batch, each row through the parameters of its own task."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from mtl_opt.batch import task_rows
from mtl_opt.errors import UnknownNameError


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str | Sequence[int]],
    tasks: Sequence[str | int] | str | int = 0,
    *,
    batch_size: int = 16,
    max_new_tokens: int = 64,
    stop: str | None = None,
    ends: Sequence[int] = (),
    **options: Any,
) -> list[Any]:
    """Answer prompts of any mixture of tasks, in batches padded on the left.

    Args:
        model: A model of transformers or peft, with a way of sharing in it or without.
        tokenizer: Its tokenizer, with a pad token or an end token.
        prompts: Texts, tokenised as they stand (a beginning of sequence that is written out is not added again), or
            token ids.
        tasks: Task of every prompt, by name or index, or one for all.
        batch_size: Prompts per batch; beams and returned sequences come on top.
        max_new_tokens: Longest answer.
        stop: Text at which an answer ends; the end token always ends it.
        ends: Tokens that end an answer besides the end token, such as the one a chat template writes after it.
        options: What `model.generate` takes, such as `do_sample`, `temperature`, `num_beams`, `num_return_sequences`,
            `streamer`.

    Returns:
        One answer per prompt, in order; a list of answers per prompt with `num_return_sequences` above 1.

    A `ValueError` says that the model has no task of a name, or that there is not one per prompt.
    """
    ids = task_ids(model, tasks, len(prompts))
    each = int(options.get("num_return_sequences") or 1)
    tokens = [text_ids(p, tokenizer) if isinstance(p, str) else list(p) for p in prompts]
    answers: list[str] = []
    for chunk in _chunks(len(tokens), batch_size):
        found = generate_batch(
            model, tokenizer, tokens[chunk], ids[chunk], stop, ends, max_new_tokens=max_new_tokens, **options
        )
        answers += [answer_text(answer, tokenizer, stop, ends) for answer in found]
    if each == 1:
        return answers
    return [answers[begin : begin + each] for begin in range(0, len(answers), each)]


@torch.no_grad()
def generate_batch(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    ids: Sequence[int],
    stop: str | None = None,
    ends: Sequence[int] = (),
    **options: Any,
) -> list[list[int]]:
    """Answer one batch; the rows of beams and returned sequences have the task of their prompt."""
    if stop:
        options |= {"stop_strings": [stop], "tokenizer": tokenizer}
    device = next(model.parameters()).device
    pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    width = max(map(len, prompts))
    rows = torch.tensor([[pad] * (width - len(p)) + list(p) for p in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
    copies = max(int(options.get("num_beams") or 1), int(options.get("num_return_sequences") or 1))
    owners = torch.tensor(list(ids), device=device).repeat_interleave(copies)
    if not options.get("do_sample"):  # sampling that the model's own settings ask for
        options = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None, **options}
    was_training = model.training
    model.eval()
    try:
        with task_rows(owners):
            found = generated(
                model,
                rows,
                mask,
                pad_token_id=pad,
                eos_token_id=end_tokens(tokenizer, ends) or None,
                **options,
            )
    finally:
        model.train(was_training)
    return found.tolist()


def generated(model: Any, input_ids: Tensor, mask: Tensor, **options: Any) -> Tensor:  # [rows, seq] -> [rows, answer]
    """Generate behind prompts that are padded on the left, and return what follows each of them."""
    if not getattr(model.config, "is_encoder_decoder", False):
        found: Tensor = model.generate(input_ids=input_ids, attention_mask=mask, **options)
        return found[:, input_ids.shape[1] :]
    order = mask.argsort(dim=1, descending=True, stable=True)  # an encoder may number positions from the first place
    found = model.generate(input_ids=input_ids.gather(1, order), attention_mask=mask.gather(1, order), **options)
    return found[:, 1:]  # behind the token that begins an answer


def task_ids(model: Any, tasks: Sequence[str | int] | str | int, number: int) -> list[int]:
    """Find the index of the task of every prompt."""
    given = [tasks] * number if isinstance(tasks, str | int) else list(tasks)
    if len(given) != number:
        raise ValueError(f"`tasks` must be one task or one per prompt ({number}), got {len(given)}.")
    known = list(getattr(model, "tasks", ())) or list(dict.fromkeys(task for task in given if isinstance(task, str)))
    found = []
    for task in given:
        if isinstance(task, str) and task in known:
            found.append(known.index(task))
        elif not isinstance(task, str) and 0 <= task < max(1, len(known)):
            found.append(int(task))
        else:
            raise UnknownNameError("task", task, known)
    return found


def text_ids(text: str, tokenizer: Any) -> list[int]:
    """Tokenise a prompt, with the tokenizer's own marks unless the prompt begins with them."""
    marked = bool(tokenizer.bos_token) and text.startswith(tokenizer.bos_token)
    return list(tokenizer(text, add_special_tokens=not marked)["input_ids"])


def end_tokens(tokenizer: Any, ends: Sequence[int] = ()) -> list[int]:
    """Return the tokens that end an answer, the end token last."""
    return [*dict.fromkeys([*ends, *([] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id])])]


def answer_text(ids: Sequence[int], tokenizer: Any, stop: str | None, ends: Sequence[int] = ()) -> str:
    """Decode an answer up to a token or the text that ends it."""
    last = set(end_tokens(tokenizer, ends))
    ids = list(ids[: next((place for place, token in enumerate(ids) if token in last), len(ids))])
    if stop is None:
        return tokenizer.decode(ids, skip_special_tokens=not ends)
    return tokenizer.decode(ids, skip_special_tokens=False).split(stop)[0]


class TextStream:
    """Stream an answer's text as it grows, in whole characters and without what ends it.

    Args:
        tokenizer: The tokenizer.
        write: Takes every new piece of text.
        stop: Text that ends the answer; None for the end token alone.
        ends: Tokens that end the answer besides the end token.
    """

    def __init__(self, tokenizer: Any, write: Any, stop: str | None = None, ends: Sequence[int] = ()) -> None:
        self.tokenizer = tokenizer
        self.write = write
        self.stop = stop
        self.ends = ends
        self.prompt_seen = False
        self.ids: list[int] = []
        self.written = 0

    def put(self, value: Tensor) -> None:  # [1, seq] first, then [1]
        """Receive the prompt first, then every new token."""
        if not self.prompt_seen:
            self.prompt_seen = True
            return
        self.ids += value.flatten().tolist()
        text = answer_text(self.ids, self.tokenizer, self.stop, self.ends)
        safe = len(text.rstrip("\ufffd"))  # a character may need more tokens
        if self.stop:  # the text may end with the first letters of what ends it
            held = next((n for n in range(len(self.stop) - 1, 0, -1) if text.endswith(self.stop[:n])), 0)
            safe = min(safe, len(text) - held)
        self._give(text[:safe])

    def end(self) -> None:
        """Write the rest of the answer."""
        self._give(answer_text(self.ids, self.tokenizer, self.stop, self.ends))

    def _give(self, text: str) -> None:
        """Write what is new."""
        if len(text) > self.written:
            self.write(text[self.written :])
            self.written = len(text)


def _chunks(number: int, size: int) -> Iterator[slice]:
    """Cut rows into batches."""
    for begin in range(0, number, size):
        yield slice(begin, min(begin + size, number))
