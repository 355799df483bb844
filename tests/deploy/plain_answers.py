"""Answer in a process of its own, without mtl_opt: `python plain_answers.py QUESTION OUT.json FOLDER...`."""

import json
import sys

from jinja2 import TemplateError
from transformers import AutoModelForCausalLM, AutoTokenizer


def answer(question: str, folder: str) -> list[str]:
    """Return an answer as plain transformers gives it: its text, and the token that ended it."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    contents = question, [{"type": "text", "text": question}]  # templates of models that also see images take a list
    for content in contents:
        try:
            text = tokenizer.apply_chat_template(
                [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
            )
        except TemplateError:
            continue
        if question in text:
            break
    inputs = tokenizer(text, add_special_tokens=False, return_tensors="pt")
    found = model.generate(**inputs, max_new_tokens=12, do_sample=False)[0, inputs["input_ids"].shape[1] :].tolist()
    return [tokenizer.decode(found[:-1]), tokenizer.decode(found[-1:])]


def main(question: str, out: str, *folders: str) -> None:
    """Save the answers of all folders."""
    answers = {folder: answer(question, folder) for folder in folders}
    assert "mtl_opt" not in sys.modules
    with open(out, "w", encoding="utf-8") as file:
        json.dump(answers, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
