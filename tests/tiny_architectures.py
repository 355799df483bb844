"""Tiny untrained models of the architectures that people fine-tune, built from the configurations of transformers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from tiny_run import TASKS, rows_of

from mtl_opt.examples.tiny_llama import train_tokenizer

LLAMA = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128,
}  # fmt: skip
GEMMA = {**LLAMA, "head_dim": 8}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}
DEEPSEEK = {
    **LLAMA, **EXPERTS, "num_key_value_heads": 4, "n_routed_experts": 4, "n_group": 2, "topk_group": 1,
    "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8,
    "first_k_dense_replace": 1,
}  # fmt: skip
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "dropout_rate": 0.0}
BART = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_position_embeddings": 128,
    "dropout": 0.0, "forced_eos_token_id": None, "forced_bos_token_id": None,
}  # fmt: skip
NO_DROPOUT_GPT2 = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
OPT = {
    "hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "word_embed_proj_dim": 32,
    "max_position_embeddings": 128, "dropout": 0.0,
}  # fmt: skip
FALCON = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
MAMBA = {"hidden_size": 32, "state_size": 8, "num_hidden_layers": 2}
NEOX = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 128,
}  # fmt: skip
WINDOWED = {**GEMMA, "sliding_window": 64, "attention_window_size": 64}

ARCHITECTURES: dict[str, tuple[str, Mapping[str, Any]]] = {
    "llama": ("Llama", {**LLAMA, "tie_word_embeddings": False}),
    "llama_tied": ("Llama", {**LLAMA, "tie_word_embeddings": True}),
    "qwen2": ("Qwen2", LLAMA),
    "qwen3": ("Qwen3", GEMMA),
    "gemma": ("Gemma", GEMMA),
    "gemma2": ("Gemma2", {**GEMMA, "sliding_window": 64, "query_pre_attn_scalar": 8}),
    "gemma3": ("Gemma3Text", {**GEMMA, "sliding_window": 64, "query_pre_attn_scalar": 8}),
    "mistral": ("Mistral", LLAMA),
    "phi3": ("Phi3", LLAMA),
    "gpt2": ("GPT2", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128, **NO_DROPOUT_GPT2}),
    "gpt_neox": ("GPTNeoX", NEOX),
    "opt": ("OPT", OPT),
    "bloom": ("Bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "falcon": ("Falcon", FALCON),
    "glm": ("Glm", {**LLAMA, "head_dim": 8}),
    "olmo2": ("Olmo2", LLAMA),
    "cohere": ("Cohere", LLAMA),
    "mixtral": ("Mixtral", {**LLAMA, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen3_moe": ("Qwen3Moe", {**GEMMA, **EXPERTS, "num_experts": 4}),
    "deepseek_v3": ("DeepseekV3", DEEPSEEK),
    "mamba": ("Mamba", MAMBA),
    "recurrent_gemma": ("RecurrentGemma", {**WINDOWED, "num_hidden_layers": 3, "lru_width": 32}),
    "t5": ("T5", T5),
    "bart": ("Bart", BART),
}
"""By name: the family as transformers writes it in its classes, and the sizes of a tiny one."""

ENCODER_DECODERS = ("t5", "bart")


def save_architecture(name: str, folder: Path) -> str:
    """Save an untrained model of an architecture with a tokenizer of some 300 tokens, and return its folder."""
    family, sizes = ARCHITECTURES[name]
    texts = [value for task in TASKS for row in rows_of(task, 8) for value in row.values()]
    tokenizer = train_tokenizer(texts, vocab_size=300)
    tokens = {
        "vocab_size": len(tokenizer), "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    kind = "ForConditionalGeneration" if name in ENCODER_DECODERS else "ForCausalLM"
    kind = "LMHeadModel" if name == "gpt2" else kind
    more = {"decoder_start_token_id": tokenizer.pad_token_id} if name in ENCODER_DECODERS else {}
    head = "Gemma3" if name == "gemma3" else family
    config = getattr(transformers, f"{family}Config")(**sizes, **tokens, **more)
    torch.manual_seed(0)
    getattr(transformers, f"{head}{kind}")(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
