"""Rows of different tasks in one batch answer as each alone, with beams, returned sequences and a stream."""

import pytest
import torch
from models.sharing_cases import TASKS, make_model
from template_tokenizer import chat_tokenizer, template_source
from tokenizers import processors

import mtl_opt
from mtl_opt.batch import task_rows
from mtl_opt.errors import UnknownNameError
from mtl_opt.examples.tiny_llama import train_tokenizer
from mtl_opt.generation import TextStream, answer_text, text_ids

PROMPTS = ["a few words", "of", "几个汉字 of text", "text", "words of a few"]
OWNERS = ["qa", "摘要", "anger", "摘要", "qa"]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["a few words of text", "几个汉字"], vocab_size=270)


@pytest.fixture(scope="module")
def model():
    return make_model("private_layers").double()  # ties between rounded scores would decide


def test_a_mixed_batch_answers_as_each_row_alone(model, tokenizer):
    together = mtl_opt.generate(model, tokenizer, PROMPTS, OWNERS, max_new_tokens=8)
    alone = [
        mtl_opt.generate(model, tokenizer, [p], t, max_new_tokens=8)[0] for p, t in zip(PROMPTS, OWNERS, strict=True)
    ]
    assert together == alone
    assert mtl_opt.generate(model, tokenizer, PROMPTS, OWNERS, max_new_tokens=8, batch_size=2) == alone
    other = mtl_opt.generate(model, tokenizer, PROMPTS, "anger", max_new_tokens=8)
    assert other[2] == alone[2]
    assert other != alone
    assert model.training  # as it was


@pytest.mark.parametrize("options", [{"num_beams": 3}, {"num_beams": 3, "num_return_sequences": 2}])
def test_beams_keep_the_task_of_their_row(options, model, tokenizer):
    together = mtl_opt.generate(model, tokenizer, PROMPTS, OWNERS, max_new_tokens=6, **options)
    for prompt, task, found in zip(PROMPTS, OWNERS, together, strict=True):
        assert mtl_opt.generate(model, tokenizer, [prompt], task, max_new_tokens=6, **options) == [found]
        assert not isinstance(found, list) or len(found) == options["num_return_sequences"]


def test_greedy_answers_are_those_of_the_models_own_generate(model, tokenizer):
    ids = tokenizer(PROMPTS[0], return_tensors="pt")["input_ids"]
    with task_rows(torch.tensor([0])):
        plain = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False,
            pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
        )  # fmt: skip
    own = mtl_opt.generate(model, tokenizer, [PROMPTS[0]], 0, max_new_tokens=8)
    assert own == [answer_text(plain[0, ids.shape[1] :].tolist(), tokenizer, None)]


@pytest.mark.parametrize("batch_size", [1, 16])
def test_a_text_that_ends_answers_ends_them(model, tokenizer, batch_size):
    whole = mtl_opt.generate(model, tokenizer, PROMPTS[:2], OWNERS[:2], max_new_tokens=12)
    stop = whole[0][2:4]
    found = mtl_opt.generate(
        model, tokenizer, PROMPTS[:2], OWNERS[:2], stop=stop, max_new_tokens=12, batch_size=batch_size
    )
    assert stop.strip()
    assert found == [answer.split(stop)[0] for answer in whole]


def test_drawn_answers_repeat_with_the_seed(model, tokenizer):
    def draw(seed):
        torch.manual_seed(seed)
        return mtl_opt.generate(
            model, tokenizer, PROMPTS, OWNERS, max_new_tokens=8, do_sample=True, temperature=1.5, num_return_sequences=3
        )

    assert draw(1) == draw(1) != draw(2)
    assert [len(answers) for answers in draw(1)] == [3] * len(PROMPTS)


def test_unknown_tasks_and_wrong_numbers_of_them_are_refused(model, tokenizer):
    with pytest.raises(UnknownNameError, match="Unknown task `摘"):
        mtl_opt.generate(model, tokenizer, PROMPTS, "摘要要")
    with pytest.raises(UnknownNameError, match="Unknown task `3`"):
        mtl_opt.generate(model, tokenizer, PROMPTS, len(TASKS))
    with pytest.raises(ValueError, match=r"one task or one per prompt \(5\), got 2"):
        mtl_opt.generate(model, tokenizer, PROMPTS, ["qa", "摘要"])


@pytest.mark.parametrize("stop", [None, "\n##", "。"])
@pytest.mark.parametrize("answer", ["a few words", "几个汉字。几个", "one\n#two\n##three", "ends with\n#", ""])
def test_a_stream_gives_whole_characters_and_ends_where_the_answer_does(stop, answer, tokenizer):
    pieces = []
    stream = TextStream(tokenizer, pieces.append, stop)
    stream.put(torch.tensor([[1, 2, 3]]))
    for token in tokenizer(answer)["input_ids"]:
        stream.put(torch.tensor([token]))
    stream.end()
    assert "".join(pieces) == (answer.split(stop)[0] if stop else answer)
    assert all("\ufffd" not in piece for piece in pieces)


def test_a_decoded_prompt_gives_its_own_tokens_again():
    tokenizer = chat_tokenizer(template_source("glm4"))
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)]
    )
    ids = tokenizer("<|user|>\nIs it?<|assistant|>\n")["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    assert text_ids(tokenizer.decode(ids, skip_special_tokens=False), tokenizer) == ids
    assert text_ids("Is it?", tokenizer)[0] == tokenizer.bos_token_id
