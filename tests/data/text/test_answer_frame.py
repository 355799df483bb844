"""Real chat templates at the level of labels: what is prompt, what is answer, what ends it, and what is refused."""

import json
import re
from pathlib import Path

import pytest
from template_tokenizer import chat_tokenizer, template_source

from mtl_opt.batch import IGNORE_INDEX
from mtl_opt.data import Encoder, Row, RowSpec, get_template
from mtl_opt.data.read.row_formats import make_row as read_row
from mtl_opt.data.text.answer_frame import exported_template
from mtl_opt.errors import InputError

ROW = Row("Is it?", "", "yes", None, "f.jsonl", 1)
CASES = Path(__file__).parents[3].parent / "shared" / "cases" / "data"


def encoder_of(name: str, thinking: bool | None = None, **options) -> Encoder:
    return Encoder(
        chat_tokenizer(template_source(name)), get_template("tokenizer").thinking_as(thinking), 4000, **options
    )


def learnt(encoder: Encoder, row: Row) -> list[str]:
    found, before = [], False
    for label in encoder.encode([row])[0].labels:
        if label != IGNORE_INDEX:
            found = found if before else [*found, []]
            found[-1].append(label)
        before = label != IGNORE_INDEX
    return [encoder.tokenizer.decode(piece) for piece in found]


def case(name: str) -> list[Row]:
    path = CASES / name
    if not path.exists():
        pytest.skip(f"needs ../shared/cases/data/{name}")
    lines = path.read_text(encoding="utf-8").splitlines()
    return [read_row(json.loads(line), path.name, number, RowSpec()) for number, line in enumerate(lines, start=1)]


@pytest.mark.parametrize(
    ("name", "prompt", "answer", "end"),
    [
        ("qwen3", "<|im_start|>assistant\n<think>\n\n</think>\n\n", "yes<|im_end|>\n", "<|im_end|>"),
        ("phi3", "<|assistant|>\n", "yes<|end|>\n</s>", "<|end|>"),
        ("glm4", "<|assistant|>\n", "yes</s>", "</s>"),
        ("glm4moe", "<|assistant|>\n<think></think>\n", "yes</s>", "</s>"),
        ("gemma", "<start_of_turn>model\n", "yes<end_of_turn>\n", "<end_of_turn>"),
        ("llama3", "<|start_header_id|>assistant<|end_header_id|>\n\n", "yes<|eot_id|>", "<|eot_id|>"),
        ("gptoss", "<|start|>assistant<|channel|>final<|message|>", "yes<|return|>", "<|return|>"),
        ("nemotron_3_nano", "<|im_start|>assistant\n<think></think>", "yes<|im_end|>\n", "<|im_end|>"),
        ("idefics3", "\nAssistant: ", "yes<end_of_utterance>\n", "<end_of_utterance>"),
    ],
)
def test_what_the_template_writes_before_an_answer_is_prompt_and_its_end_is_learnt(
    name: str, prompt: str, answer: str, end: str
) -> None:
    encoder = encoder_of(name)
    assert learnt(encoder, ROW) == [answer]
    assert encoder.tokenizer.decode(encoder.prompt(ROW)).endswith(prompt)
    assert encoder.tokenizer.decode(encoder.frame.ends[:1]) == end


@pytest.mark.parametrize("name", ["deepseekv3", "deepseek_r1_distill"])
def test_a_generation_prompt_that_no_answer_has_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"`f.jsonl`, line 1: .* not a token prefix .* choose another `template`"):
        encoder_of(name).encode([ROW])


@pytest.mark.parametrize("name", ["qwen3", "glm4moe", "gptoss", "nemotron_3_nano", "qwen3_5_think", "gemma"])
def test_the_exported_template_prompts_as_the_training_did(name: str) -> None:
    encoder = encoder_of(name)
    prompt = encoder.tokenizer.decode(encoder.prompt(ROW))
    encoder.tokenizer.chat_template = exported_template(encoder.tokenizer.chat_template, encoder.frame)
    asked = [{"role": "user", "content": "Is it?"}]
    assert encoder.tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True) == prompt
    again = Encoder(encoder.tokenizer, get_template("tokenizer"), 4000)
    assert encoder.tokenizer.decode(again.prompt(ROW)) == prompt


def test_enable_thinking_reaches_the_template_and_is_refused_where_it_is_unknown() -> None:
    ends = {flag: encoder_of("qwen3", flag).texts(ROW)[0][-30:] for flag in (True, False, None)}
    assert ends[True].endswith("<|im_start|>assistant\n")
    assert ends[False] == ends[None]
    assert ends[False].endswith("<think>\n\n</think>\n\n")
    assert learnt(encoder_of("qwen3", True), ROW) == ["<think>\n\n</think>\n\nyes<|im_end|>\n"]
    assert learnt(encoder_of("gptoss", True), ROW) == ["<|channel|>final<|message|>yes<|return|>"]
    with pytest.raises(InputError, match=r"`enable_thinking`: the tokenizer's chat template does not know it"):
        encoder_of("phi3", True).encode([ROW])
    with pytest.raises(InputError, match=r"`enable_thinking`: template `chatml` has fixed texts"):
        get_template("chatml").thinking_as(False)


def test_reasoning_is_learnt_where_the_template_has_a_place_for_it() -> None:
    row = case("reasoning/reason.jsonl")[0]
    encoder = encoder_of("qwen3")
    assert learnt(encoder, row) == ["<think>\nI think hard\n</think>\n\nb<|im_end|>\n"]
    assert encoder.frame.answer("<think>\nI think hard\n</think>\n\nb") == encoder.reference(row) == "b"
    assert "I think hard" in learnt(encoder_of("gptoss"), row)[0]
    for build in (lambda: encoder_of("phi3"), lambda: encoder_of("qwen3", False)):
        with pytest.raises(InputError, match=r"line 1: .* has no place for the reasoning of an answer; set `template"):
            build().encode([row])
    with pytest.raises(InputError, match=r"`template: chatml` has no place for the reasoning"):
        Encoder(encoder.tokenizer, get_template("chatml"), 100).encode([row])


@pytest.mark.parametrize("file", ["lossfield", "lossmask"])
@pytest.mark.parametrize("template", ["chatml", "llama3", "tokenizer"])
def test_an_answer_that_is_flagged_is_not_learnt(file: str, template: str) -> None:
    encoder = Encoder(encoder_of("qwen2_5").tokenizer, get_template(template), 1000)
    for row in case(f"message_flags/{file}.jsonl"):
        assert [re.sub(r"<.*", "", text).strip() for text in learnt(encoder, row)] == ["yes"]


def test_calls_are_learnt_as_the_template_writes_them() -> None:
    encoder = encoder_of("qwen2_5")
    one = '<tool_call>\n{"name": "temp", "arguments": {"city": "Oslo"}}\n</tool_call>'
    other = one.replace("Oslo", "Rome")
    assert learnt(encoder, case("tool_calls/calllist.jsonl")[0])[0] == f"{one}\n{other}<|im_end|>\n"
    assert learnt(encoder, case("tool_calls/callpretty.jsonl")[0])[0] == f"{one}<|im_end|>\n"
    assert learnt(encoder, case("tool_calls/toolcontent.jsonl")[0])[0] == f"Let me look.\n{one}<|im_end|>\n"


CALLERS = ["qwen3", "glm4moe", "lfm2_2_5", "gemma4", "nemotron_3_nano", "qwen3_5_nothink", "qwen3_6"]


@pytest.mark.parametrize("name", CALLERS)
def test_no_call_is_learnt_as_bare_json(name: str) -> None:
    encoder = encoder_of(name, mask_history=False)
    for file in ("calllist", "callpretty", "toolcontent"):
        row = case(f"tool_calls/{file}.jsonl")[0]
        call = Row("Oslo?", "", row.history[1].text, None, "f.jsonl", 1, tools=row.tools, answers="call")
        (text,) = learnt(encoder, call)
        assert not text.lstrip().startswith(("{", "[{"))
        assert text.count("temp") >= 1 + (file == "calllist")
        assert ("Let me look." in text) == (file == "toolcontent")


def test_a_call_that_the_template_cannot_write_whole_is_refused() -> None:
    row = case("tool_calls/calllist.jsonl")[0]
    with pytest.raises(InputError, match=r"single tool-calls.*choose another `template`"):
        encoder_of("llama3_1").encode([row])
    broken = Row("Oslo?", "", "call temp", None, "f.jsonl", 1, answers="call")
    with pytest.raises(InputError, match=r"tool call 'call temp' is no JSON object with `name`"):
        encoder_of("qwen3").encode([broken])


def test_results_of_several_tools_stay_apart() -> None:
    calls = [{"type": "function", "function": {"name": name, "arguments": "{}"}} for name in ("a", "b")]
    messages = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "content": "one"},
        {"role": "tool", "content": "two"},
        {"role": "assistant", "content": "done"},
    ]
    row = read_row({"messages": messages}, "f.jsonl", 1, RowSpec())
    tokenizer = encoder_of("qwen2_5").tokenizer
    apart = "<tool_response>\none\n</tool_response>\n<tool_response>\ntwo\n</tool_response>"
    for template in ("qwen", "tokenizer"):
        assert apart in "".join(Encoder(tokenizer, get_template(template), 1000).texts(row))


def test_a_system_message_that_the_template_does_not_take_is_refused() -> None:
    row = Row("q", "", "a", None, "f.jsonl", 3, system="Be brief.")
    with pytest.raises(InputError, match=r"line 3: .* takes no system message; write it into the question"):
        encoder_of("gemma").encode([row])


@pytest.mark.parametrize("name", ["phi3", "qwen3", "gemma3"])
def test_a_dialogue_is_learnt_where_the_template_keeps_its_answers(name: str) -> None:
    messages = [{"role": role, "content": text} for role, text in (("user", "a"), ("assistant", "b")) * 2]
    row = read_row({"messages": messages}, "f.jsonl", 1, RowSpec())
    if name == "qwen3":  # drops the think block of earlier answers
        with pytest.raises(InputError, match="set `mask_history: true`"):
            encoder_of(name).encode([row])
        assert learnt(encoder_of(name, mask_history=True), row) == ["b<|im_end|>\n"]
    else:
        end = encoder_of(name).tokenizer.decode(encoder_of(name).frame.ends[:1])
        assert [text.partition(end)[0] for text in learnt(encoder_of(name), row)] == ["b", "b"]


@pytest.mark.parametrize("name", ["qwen2_5", "qwen3"])
def test_every_call_of_the_demo_file_of_llamafactory_is_learnt_in_the_form_of_the_template(name: str) -> None:
    rows = case("../../data/llamafactory_demo/reason_tool_use_demo_50.jsonl")
    encoder = encoder_of(name, mask_history=True)
    answers = [learnt(encoder, row)[-1] for row in rows if row.answers == "call"]
    assert len(answers) > 10
    assert all("<tool_call>\n{" in answer and "<think>" in answer for answer in answers)
    turns = [turn for row in rows for pair in row.turns for turn in pair]
    assert sum(turn.role == "call" for turn in turns) == 53
