"""A tiny Llama and its tokenizer, trained from scratch, so that the example needs no download."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from mtl_opt.errors import InputError

Progress = Callable[[int, int, float], None]
"""Called after each step with steps done, steps in total, and loss in nats per token."""


def train_tokenizer(texts: Sequence[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer, which encodes and decodes any text without loss."""
    special = ["<s>", "</s>", "<pad>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if vocab_size < len(alphabet) + len(special):
        raise InputError(f"`vocab_size` must be at least {len(alphabet) + len(special)}, got {vocab_size}.")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        clean_up_tokenization_spaces=False,
    )


def pretrain(
    texts: Sequence[str],
    tokenizer: PreTrainedTokenizerFast,
    *,
    hidden_size: int,
    num_layers: int,
    num_heads: int,
    steps: int,
    batch_size: int,
    seq_len: int,
    learning_rate: float,
    seed: int,
    progress: Progress | None = None,
) -> LlamaForCausalLM:
    """Train a tiny Llama on packed text with AdamW and a cosine schedule."""
    rows = pack(texts, tokenizer, seq_len)
    model = new_llama(tokenizer, hidden_size, num_layers, num_heads, seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: warmup_cosine(step, steps))
    order = shuffled_batches(len(rows), batch_size, seed)
    model.train()
    for step in range(1, steps + 1):
        batch = rows[next(order)]  # [batch, seq]
        loss = model(input_ids=batch, labels=batch, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if progress is not None:
            progress(step, steps, loss.item())
    return model.eval()


def build_tiny_llama(folder: Path, texts: Sequence[str], seed: int, progress: Progress | None = None) -> None:
    """Train tokenizer and model of the example, and save both."""
    tokenizer = train_tokenizer(texts, vocab_size=1200)
    with one_thread():
        model = pretrain(
            texts,
            tokenizer,
            hidden_size=128,
            num_layers=3,
            num_heads=4,
            steps=900,
            batch_size=8,
            seq_len=128,
            learning_rate=2e-3,
            seed=seed,
            progress=progress,
        )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread."""
    # The number of threads changes the rounding, and with it the quality of this small model. On a busy machine, one
    # thread is also many times faster than several that wait for each other at every small product.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def new_llama(
    tokenizer: PreTrainedTokenizerFast, hidden_size: int, num_layers: int, num_heads: int, seed: int
) -> LlamaForCausalLM:
    """Initialise a Llama, leaving the caller's random state untouched."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        num_key_value_heads=num_heads,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        initializer_range=hidden_size**-0.5,  # the default, 0.02, suits wide models and learns more slowly here
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def pack(texts: Sequence[str], tokenizer: PreTrainedTokenizerFast, seq_len: int) -> Tensor:  # [rows, seq]
    """Join texts with end-of-text tokens, and cut the result into rows without padding."""
    ids: list[int] = []
    for text in tokenizer(list(texts), add_special_tokens=False)["input_ids"]:
        ids += [*text, tokenizer.eos_token_id]
    rows = len(ids) // seq_len
    if rows == 0:
        raise InputError(f"`texts` must fill a row of {seq_len} tokens, got {len(ids)} tokens.")
    return torch.tensor(ids[: rows * seq_len]).view(rows, seq_len)


def shuffled_batches(num_rows: int, batch_size: int, seed: int) -> Iterator[Tensor]:  # [batch]
    """Yield batches of row indices without end, every row once before any is repeated."""
    generator = torch.Generator().manual_seed(seed)
    waiting = torch.empty(0, dtype=torch.long)
    while True:
        while len(waiting) < batch_size:
            waiting = torch.cat([waiting, torch.randperm(num_rows, generator=generator)])
        yield waiting[:batch_size]
        waiting = waiting[batch_size:]


def warmup_cosine(step: int, steps: int) -> float:
    """Return the factor of the learning rate: linear over 5 % of the steps, then a cosine down to 0.1."""
    warmup = max(1, steps // 20)
    if step < warmup:
        return (step + 1) / warmup
    return 0.55 + 0.45 * math.cos(math.pi * (step - warmup) / max(1, steps - warmup))
