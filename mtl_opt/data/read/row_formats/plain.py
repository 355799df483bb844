"""Row formats of single answers: alpaca, prompt and completion, plain text, (token) classification, multiple choice."""

from typing import Any

from mtl_opt.data.read.files import json_type
from mtl_opt.data.read.row_formats.dialogue import dialogue_fields, messages_of
from mtl_opt.data.read.row_formats.record import Record, checked_text
from mtl_opt.data.read.rows import Turn, words_of
from mtl_opt.errors import InputError

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

TAG_COLUMNS = ("tags", "ner_tags", "pos_tags", "labels")
"""Columns that may hold the tags of words; the first one found counts."""

MISSING = "-100"
"""Label that stands for a missing one, as in data sets made for transformers."""

END_MARKS = ("<|endoftext|>", "</s>", "<|im_end|>", "<|eot_id|>")
"""End marks of completions made for one tokenizer; they are removed, since the template writes the run's own."""


def alpaca(record: Record) -> dict[str, Any]:
    """Read `{instruction, input, output, system, history}`, or `{query, response}` as other tools have it."""
    if record.spec.columns and not record.spec.columns.get("response"):
        return plain_text(record)
    asks_by_query = not record.spec.columns and "instruction" not in record.values and "query" in record.values
    names = ("query", "input", "response") if asks_by_query else ("instruction", "input", "output")
    earlier, unanswered = history(record)
    fields: dict[str, Any] = {
        "instruction": record.text("prompt", names[0]),
        "input": record.optional("query", names[1]),
        "output": record.answer("response", names[2]),
        "system": record.optional("system", "system"),
        "tools": record.optional("tools", "tools"),
        "history": earlier,
        "joined": bool(unanswered),
    }
    answer = record.column("response", names[2])
    check_pair(fields["instruction"] + fields["input"], fields["output"], record, (*names[:2], answer))
    fields["instruction"] = unanswered + fields["instruction"]
    return fields


def history(record: Record) -> tuple[tuple[Turn, ...], str]:
    """Read earlier questions and answers, and what was asked last without an answer (null or empty)."""
    pairs = record.value("history", "history") or []
    column = record.column("history", "history")
    if not isinstance(pairs, list) or not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
        raise InputError(f"{record.where}: `{column}` must be a list of [question, answer], got {json_type(pairs)}.")
    turns: list[Turn] = []
    asked = ""
    for question, answer in pairs:
        asked += checked_text(str(column), question, record.where)
        if answer is None or answer == "":
            asked += "\n\n"
            continue
        turns += [Turn("user", asked), Turn("assistant", checked_text(str(column), answer, record.where))]
        asked = ""
    return tuple(turns), asked


def prompt_completion(record: Record) -> dict[str, Any]:
    """Read `{prompt, completion}`: two texts, or two lists of messages of which the completion is learnt."""
    name = "response" if record.spec.columns.get("response") else "completion"
    column, prompt = record.required("prompt", "prompt")
    answer_column, answer = record.required(name, "completion")
    if isinstance(prompt, list) and isinstance(answer, list):
        asked = messages_of(column, prompt, record, default_learn=False)
        return dialogue_fields([*asked, *messages_of(answer_column, answer, record)], record)
    text = record.text(name, "completion")
    text = text.removesuffix(next((mark for mark in END_MARKS if text.endswith(mark)), ""))
    fields = {"instruction": record.text("prompt", "prompt"), "input": "", "output": text}
    check_pair(fields["instruction"], fields["output"], record, (column, answer_column))
    return {**fields, "system": record.optional("system", "system")}


def plain_text(record: Record) -> dict[str, Any]:
    """Read `{text}`, which is learnt whole."""
    name = "text" if record.spec.columns.get("text") or not record.spec.columns else "prompt"
    text = record.text(name, "text")
    if not text.strip():
        raise InputError(f"{record.where}: `{record.column(name, 'text')}` is empty; there is nothing to learn.")
    return {"instruction": "", "input": "", "output": text, "asks": "nobody"}


def classification(record: Record) -> dict[str, Any]:
    """Read `{text, label}`; the label, a text, number or truth value, is the answer."""
    if record.spec.labels:
        label, column = record.answer("label", "label"), str(record.column("label", "label"))
        text = record.text("text", "text")
        check_pair(text, label, record, (record.column("text", "text"), column))
        return {"instruction": text, "input": "", "output": label, "label": label or None}
    column, value = record.required("label", "label")
    if not isinstance(value, str | int | float):
        raise InputError(f"{record.where}: `{column}` must be a text or a number, got {json_type(value)}.")
    label = checked_text(column, value if isinstance(value, str) else str(value), record.where)
    text = record.text("text", "text")
    check_pair(text, label, record, (record.column("text", "text"), column))
    return {"instruction": text, "input": "", "output": label, "label": label}


def token_classification(record: Record) -> dict[str, Any]:
    """Read `{tokens, tags}`: words and one tag for each, a name, an index or null."""
    column, words = record.required("tokens", "tokens")
    own = [key for key in TAG_COLUMNS if key in record.values and not record.spec.columns]
    key, tags = record.required("tags", own[0] if own else TAG_COLUMNS[0])
    if not isinstance(words, list) or not isinstance(tags, list | None):
        raise InputError(f"{record.where}: `{column}` and `{key}` must be lists, got {json_type(words)}.")
    texts = [checked_text(column, word, record.where) for word in words]
    bad = next((number for number, word in enumerate(texts, start=1) if words_of(word) != [word]), None)
    if bad is not None or not texts:
        what = "is empty" if bad is None else f"holds {texts[bad - 1]!r} as word {bad}"
        raise InputError(f"{record.where}: `{column}` {what}; words are texts without white space.")
    names = [MISSING if tag is None else str(tag) for tag in tags or ()]
    if tags is not None and (len(names) != len(texts) or any(words_of(name) != [name] for name in names)):
        raise InputError(
            f"{record.where}: `{key}` must hold one tag without white space per word, got {len(names)} for "
            f"{len(texts)} words."
        )
    return {"instruction": " ".join(texts), "input": "", "output": " ".join(names)}


def multiple_choice(record: Record) -> dict[str, Any]:
    """Read `{question, choices, answer}`: choices as texts, the answer as index from 0, letter or text."""
    column, choices = record.required("choices", "choices")
    letters = list(LETTERS)
    if isinstance(choices, dict) and isinstance(choices.get("text"), list):
        letters = [str(label) for label in choices.get("label") or LETTERS]
        choices = choices["text"]
    if not isinstance(choices, list) or not 2 <= len(choices) <= len(letters):
        raise InputError(f"{record.where}: `{column}` must be a list of 2 to 26 texts, got {json_type(choices)}.")
    texts = [checked_text(column, choice, record.where) for choice in choices]
    letters = letters[: len(texts)]
    key, answer = record.required("answer", "answer")
    letter = right_letter(answer, texts, letters)
    if letter is None:
        allowed = f"an index below {len(texts)}, a letter ({', '.join(letters)}) or one of the choices"
        raise InputError(f"{record.where}: `{key}` must be {allowed}, got {json_type(answer)}.")
    question = record.text("question", "question")
    listed = "\n".join(f"{name}. {text}" for name, text in zip(letters, texts, strict=True))
    check_pair(question, letter, record, (record.column("question", "question"), key))
    return {"instruction": question, "input": listed, "output": letter, "choices": tuple(letters), "label": letter}


def right_letter(answer: object, texts: list[str], letters: list[str]) -> str | None:
    """Return the letter of an answer given as index, letter or text; None where it fits no choice."""
    if isinstance(answer, int) and not isinstance(answer, bool):
        return letters[answer] if 0 <= answer < len(letters) else None
    if answer in letters:
        return str(answer)
    if answer in texts:
        return letters[texts.index(str(answer))]
    if isinstance(answer, str) and answer.strip().isdecimal() and int(answer) < len(letters):
        return letters[int(answer)]
    return None


def check_pair(question: str, answer: str, record: Record, columns: tuple[str | None, ...]) -> None:
    """Raise if question or answer is empty; `columns` are those of the question, then the answer's."""
    *asked, answered = (str(column) for column in columns)
    if not answer.strip() and not record.spec.labels:
        raise InputError(f"{record.where}: `{answered}` is empty; a row needs an answer to learn.")
    if not question.strip():
        both = "are both empty" if len(asked) > 1 else "is empty"
        raise InputError(f"{record.where}: {' and '.join(f'`{name}`' for name in asked)} {both}.")
