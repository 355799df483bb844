"""A byte-level tokenizer with the special tokens that a chat template writes."""

import importlib.util
import re
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

TRL = importlib.util.find_spec("trl")
FOLDER = Path(TRL.origin or "").parent / "chat_templates" if TRL else Path()
"""Real chat templates; empty where the development dependency trl is not installed."""

GLM4 = (
    "[gMASK]<sop>{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
"""The text part of GLM-4's template: no answer is closed."""

MARKS = re.compile(r"<\|[^|<>\s'\"]+\|>|<｜[^｜<>\s]+｜>|<[a-z_]+_of_[a-z]+>|<\|[a-z_]+>|<[a-z_]+\|>")


def template_source(name: str) -> str:
    """Read a chat template."""
    if name == "glm4":
        return GLM4
    if TRL is None:
        pytest.skip("needs trl, a development dependency")
    return (FOLDER / f"{name}.jinja").read_text(encoding="utf-8")


def special_tokens(source: str) -> list[str]:
    """Return the special tokens that a chat template writes."""
    return sorted({*MARKS.findall(source), *(("<|user|>", "<|assistant|>") if source == GLM4 else ())})


def chat_tokenizer(source: str, special: list[str] | None = None) -> PreTrainedTokenizerFast:
    """Build the tokenizer."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=special_tokens(source) if special is None else special,
    )
    tokenizer.chat_template = source
    return tokenizer
