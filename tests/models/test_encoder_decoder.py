"""Encoder–decoder models: losses of transformers itself, exact gradients per task, answers that no padding changes."""

from pathlib import Path

import pytest
import torch
import transformers
from models.sharing_cases import LORA, TASKS, stir
from tiny_architectures import ARCHITECTURES, ENCODER_DECODERS

from mtl_opt import Sum, TaskGradients, generate
from mtl_opt.batch import TaskBatch, task_rows
from mtl_opt.errors import InputError
from mtl_opt.examples.tiny_llama import train_tokenizer
from mtl_opt.models import build_sharing, check_packing, load_base, load_model, private_parameters, share, task_losses
from mtl_opt.models.encoder_decoder import check_answers, prepare_generation

TOKENS = {"vocab_size": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 0}


def tiny(name, **changes):
    """Build an untrained model in float64, without dropout."""
    family, sizes = ARCHITECTURES[name]
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**{**sizes, **TOKENS, **changes})
    return getattr(transformers, f"{family}ForConditionalGeneration")(config).double().eval()


def batch_of(ids=(0, 0, 1, 1, 2, 2)):
    """Draw rows of prompts of 2 to 5 tokens and answers of 1 to 4, padded on the right."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(3, 64, (len(ids), 9), generator=generator)
    prompts, answers = 2 + torch.arange(len(ids)) % 4, 1 + torch.arange(len(ids)) % 4
    places = torch.arange(9)
    mask = (places < (prompts + answers)[:, None]).long()
    labels = torch.where((places >= prompts[:, None]) & (mask > 0), tokens, -100)
    return TaskBatch(tokens * mask, mask, labels, torch.tensor(ids))


@pytest.mark.parametrize("name", ENCODER_DECODERS)
def test_losses_are_those_of_transformers_for_every_row_alone(name):
    model, batch = tiny(name), batch_of()
    losses, counts = task_losses(model, batch, 3)
    sums, wanted = torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.long)
    for row, task in enumerate(batch.task_ids.tolist()):
        learnt = batch.labels[row] != -100
        prompt = batch.input_ids[row][(batch.attention_mask[row] > 0) & ~learnt]
        answer = batch.labels[row][learnt]
        sums[task] += model(input_ids=prompt[None], labels=answer[None]).loss.detach() * len(answer)
        wanted[task] += len(answer)
    assert counts.tolist() == wanted.tolist()
    torch.testing.assert_close(losses.detach(), sums / wanted)


@pytest.mark.parametrize("sharing", ["private_layers", "task_attention"])
@pytest.mark.parametrize("ids", [(0, 0, 1, 1, 2, 2), (2, 0, 1, 0, 2, 0)])
@pytest.mark.parametrize("name", ENCODER_DECODERS)
def test_one_pass_is_per_task(name, ids, sharing):
    found = []
    for engine in ("one_pass", "per_task"):
        model, batch = tiny(name), batch_of(ids)
        share(model, build_sharing(sharing, {"heads": 2} if sharing == "task_attention" else {}), TASKS, LORA)
        stir(model.double())
        own = private_parameters(model)
        grads = TaskGradients(model, TASKS, engine, private=own, buffer_dtype=torch.float64, verify=True)
        with grads.rows(batch.task_ids):
            grads.backward(*task_losses(model, batch, 3))
        rows = grads.jacobian.clone()
        grads.combine(Sum())
        found.append([rows, *(p.grad.clone() for group in own.values() for p in group)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("name", ENCODER_DECODERS)
def test_a_batch_answers_as_each_row_alone_and_without_the_prompt(name):
    tokenizer = train_tokenizer(["a few words of text", "几个汉字"], vocab_size=270)
    tokens = {key: getattr(tokenizer, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    model = tiny(name, vocab_size=len(tokenizer), **tokens, decoder_start_token_id=tokenizer.pad_token_id)
    prompts = ["a few words", "几个", "text of words a few 汉字"]
    together = generate(model, tokenizer, prompts, 0, max_new_tokens=6)
    assert together == [generate(model, tokenizer, [prompt], 0, max_new_tokens=6)[0] for prompt in prompts]
    ids = torch.tensor([tokenizer(prompts[0])["input_ids"]])
    plain = model.generate(input_ids=ids, max_new_tokens=6, do_sample=False)[0, 1:]
    assert together[0] == tokenizer.decode(plain, skip_special_tokens=True)


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        ([-100, 5, 6], None),
        ([-100, 5, -100, -100], None),
        ([5, 6, 7], "has no prompt for the encoder to read"),
        ([-100, 5, -100, 6], "has 2 answers, of which a decoder writes only one"),
    ],
)
def test_a_row_is_one_prompt_and_one_answer(labels, why):
    assert check_answers(labels) == why


def test_habits_of_generation_are_left_out_and_packing_is_refused(caplog):
    caplog.set_level("INFO")
    model = tiny("bart")
    model.generation_config.update(num_beams=4, min_length=56, forced_bos_token_id=1)
    prepare_generation(model, "bart")
    assert "its own settings of generation (forced_bos_token_id, min_length, num_beams) are left out" in caplog.text
    assert model.generation_config.num_beams in {None, 1}
    with pytest.raises(InputError, match="`packing: true`: BartForConditionalGeneration has an encoder"):
        check_packing(model)
    model.config.decoder_start_token_id = None
    with pytest.raises(InputError, match="`bart` names no `decoder_start_token_id`"):
        prepare_generation(model, "bart")


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (transformers.WhisperConfig(), "architecture `whisper`, which is no model from text to text"),
        (transformers.LlavaConfig(), "architecture `llava`, which reads vision beside text"),
        (transformers.Gemma3Config(), "architecture `gemma3`, which reads vision beside text"),
        (transformers.ViTConfig(), "architecture `vit`, which is no model from text to text"),
    ],
)
def test_models_of_more_than_text_are_refused_in_a_sentence(config, sentence, tmp_path: Path):
    config.save_pretrained(tmp_path)
    for load in (lambda: load_base(str(tmp_path)), lambda: load_model(str(tmp_path), lora=None)):
        with pytest.raises(InputError, match=sentence):
            load()


def test_rows_open_while_an_encoder_decoder_reads_them_are_its_own():
    model, batch = tiny("t5"), batch_of()
    share(model, build_sharing("private_layers", {"layers": 4}), TASKS, LORA)
    stir(model.double())
    with task_rows(batch.task_ids):
        losses, _ = task_losses(model, batch, 3)
    alone = batch_of()
    keep = alone.task_ids == 1
    part = TaskBatch(alone.input_ids[keep], alone.attention_mask[keep], alone.labels[keep], alone.task_ids[keep])
    with task_rows(part.task_ids):
        torch.testing.assert_close(task_losses(model, part, 3)[0][1], losses[1])
