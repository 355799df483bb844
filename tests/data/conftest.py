"""Tokenizers for the tests (a byte-level BPE trained here, the real one of the shared model), rows, and frames."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from mtl_opt.data.read.rows import Row

SHARED = Path(__file__).parents[3] / "shared"
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CORPUS = [
    "Human: What does the card cost? Assistant: The card costs nothing in the first year.",
    "### Instruction: Is the customer angry? ### Response: yes, the customer is very angry about the card",
    "客户非常生气，因为信用卡被盗刷了。请问这张信用卡的年费是多少？",
]


@pytest.fixture(scope="session")
def make_tokenizer() -> Callable[..., PreTrainedTokenizerBase]:
    def make(opens: bool = False, chat_template: str | None = None, **special: str | None) -> PreTrainedTokenizerBase:
        names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", **special}
        kept = {name: token for name, token in names.items() if token is not None}
        bpe = Tokenizer(models.BPE())
        bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        bpe.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        tokens = [*kept.values(), "<|im_start|>", "<|im_end|>"]
        trainer = trainers.BpeTrainer(
            vocab_size=500, special_tokens=tokens, initial_alphabet=alphabet, show_progress=False
        )
        bpe.train_from_iterator(CORPUS * 4, trainer)
        if opens:
            bpe.post_processor = processors.TemplateProcessing(
                single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", bpe.token_to_id("<s>"))]
            )
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, **kept)
        tokenizer.chat_template = chat_template
        return tokenizer

    return make


@pytest.fixture(scope="session")
def plain_tokenizer(make_tokenizer: Callable[..., PreTrainedTokenizerBase]) -> PreTrainedTokenizerBase:
    return make_tokenizer()


@pytest.fixture(scope="session")
def bos_tokenizer(make_tokenizer: Callable[..., PreTrainedTokenizerBase]) -> PreTrainedTokenizerBase:
    return make_tokenizer(opens=True)


@pytest.fixture(scope="session")
def chat_tokenizer(make_tokenizer: Callable[..., PreTrainedTokenizerBase]) -> PreTrainedTokenizerBase:
    return make_tokenizer(chat_template=CHATML)


@pytest.fixture(scope="session")
def real_tokenizer() -> PreTrainedTokenizerBase:
    path = SHARED / "models" / "tinystories-260k"
    if not path.is_dir():
        pytest.skip("needs ../shared/models/tinystories-260k")
    return AutoTokenizer.from_pretrained(path)


@pytest.fixture(scope="session")
def make_row() -> Callable[..., Row]:
    def make(instruction: str = "What?", output: str = "yes", text: str = "", task: str | None = None) -> Row:
        return Row(instruction, text, output, task, "rows.jsonl", 1)

    return make


@pytest.fixture(scope="session")
def frames() -> dict[str, tuple[str, str]]:
    """What each template puts before and after a single question."""
    user, assistant = "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"
    qwen = "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
    return {
        "default": ("Human: ", "</s>\nAssistant:"),
        "alpaca": (
            "Below is an instruction that describes a task. "
            "Write a response that appropriately completes the request.\n\n### Instruction:\n",
            "\n\n### Response:\n",
        ),
        "chatml": (user, assistant),
        "tokenizer": (user, assistant),
        "qwen": (qwen + user, assistant),
        "llama2": ("[INST] ", " [/INST]"),
        "llama3": (
            "<|start_header_id|>user<|end_header_id|>\n\n",
            "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        ),
    }
