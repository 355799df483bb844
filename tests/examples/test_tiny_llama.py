import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from mtl_opt.errors import InputError
from mtl_opt.examples.tiny_llama import build_tiny_llama, pack, pretrain, train_tokenizer, warmup_cosine

TEXTS = [f"The {color} card costs {n} euros a month." for color in ("red", "blue", "green") for n in range(10)]
SIZES = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "batch_size": 4, "seq_len": 16, "learning_rate": 1e-2}


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, 320)


@pytest.mark.parametrize(
    "text", ["The red card.", "银行卡的月费是多少?", "naïve  double  spaces\n\tand tabs", " , . ' 's"]
)
def test_any_text_survives_the_tokenizer(tokenizer, text):
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_the_tokenizer_has_its_special_tokens_and_adds_none(tokenizer):
    special = [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id]
    assert sorted(special) == [0, 1, 2]
    assert not set(tokenizer("The red card.")["input_ids"]) & set(special)
    assert tokenizer("a</s>b")["input_ids"].count(tokenizer.eos_token_id) == 1


def test_the_same_texts_give_the_same_tokenizer(tokenizer):
    assert train_tokenizer(TEXTS, 320).get_vocab() == tokenizer.get_vocab()


def test_a_vocabulary_without_room_for_all_bytes_is_an_error():
    with pytest.raises(InputError, match="at least 259, got 100"):
        train_tokenizer(TEXTS, 100)


def test_packing_joins_texts_with_end_of_text_and_pads_nothing(tokenizer):
    rows = pack(TEXTS, tokenizer, 16)
    assert rows.shape[1] == 16
    joined = "".join(f"{text}{tokenizer.eos_token}" for text in TEXTS)
    assert joined.startswith(tokenizer.decode(rows.flatten()))
    assert len(tokenizer(joined)["input_ids"]) - rows.numel() < 16


def test_too_little_text_is_an_error(tokenizer):
    with pytest.raises(InputError, match="must fill a row of 999 tokens"):
        pack(TEXTS[:1], tokenizer, 999)


def test_pretraining_learns_and_reports_every_step(tokenizer):
    seen = []
    pretrain(TEXTS, tokenizer, **SIZES, steps=40, seed=0, progress=lambda *args: seen.append(args))
    assert [(step, steps) for step, steps, _ in seen] == [(step, 40) for step in range(1, 41)]
    assert seen[-1][2] < 0.6 * seen[0][2]


def test_the_same_seed_gives_the_same_model_whatever_the_callers_random_state(tokenizer):
    first = pretrain(TEXTS, tokenizer, **SIZES, steps=3, seed=1)
    torch.manual_seed(123)
    before = torch.random.get_rng_state()
    second = pretrain(TEXTS, tokenizer, **SIZES, steps=3, seed=1)
    other = pretrain(TEXTS, tokenizer, **SIZES, steps=3, seed=2)
    assert torch.equal(torch.random.get_rng_state(), before)
    weights = [model.model.layers[0].mlp.up_proj.weight for model in (first, second, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_the_learning_rate_rises_then_falls_to_a_tenth():
    rates = [warmup_cosine(step, 100) for step in range(101)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert rates[100] == pytest.approx(0.1)


@pytest.mark.slow
def test_what_is_built_can_be_loaded(tmp_path):
    build_tiny_llama(tmp_path / "tiny", [text * 3 for text in TEXTS], seed=0)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "tiny")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "tiny")
    ids = tokenizer("The red card costs", return_tensors="pt")
    text = tokenizer.decode(model.generate(**ids, max_new_tokens=8, do_sample=False)[0])
    assert "euros a month" in text
