"""Registry of templates by name, with the strings that LLaMA-Factory uses under these names."""

from mtl_opt.data.text.chat_template import ChatTemplate
from mtl_opt.data.text.templates import Template, TextTemplate
from mtl_opt.errors import UnknownNameError

CHATML = {
    "before": "<|im_start|>user\n",
    "after": "<|im_end|>\n<|im_start|>assistant\n",
    "end": "<|im_end|>\n",
    "system": ("<|im_start|>system\n", "<|im_end|>\n"),
}

TEMPLATES: dict[str, Template] = {
    template.name: template
    for template in (
        TextTemplate(
            "default", before="Human: ", after="{eos}\nAssistant:", end="{eos}\n", system=("System: ", "{eos}\n")
        ),
        TextTemplate(
            "alpaca",
            before="### Instruction:\n",
            after="\n\n### Response:\n",
            end="{eos}\n\n",
            context="\n\n### Input:\n",
            system=("", "\n\n"),
            default_system="Below is an instruction that describes a task. "
            "Write a response that appropriately completes the request.",
        ),
        TextTemplate(
            "chatml",
            **CHATML,  # type: ignore[arg-type]  # texts, and a pair of texts for `system`
            observation=("<|im_start|>tool\n", "<|im_end|>\n<|im_start|>assistant\n"),
        ),
        TextTemplate(
            "qwen",
            **CHATML,  # type: ignore[arg-type]
            default_system="You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
            observation=(
                "<|im_start|>user\n<tool_response>\n",
                "\n</tool_response><|im_end|>\n<|im_start|>assistant\n",
            ),
            between="\n</tool_response>\n<tool_response>\n",
        ),
        TextTemplate(
            "llama2",
            before="[INST] ",
            after=" [/INST]",
            end="{eos}",
            system=("<<SYS>>\n", "\n<</SYS>>\n\n"),
            fused=True,
            again="{bos}",
            opens=True,
        ),
        TextTemplate(
            "llama3",
            before="<|start_header_id|>user<|end_header_id|>\n\n",
            after="<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
            end="<|eot_id|>",
            system=("<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>"),
            observation=(
                "<|start_header_id|>ipython<|end_header_id|>\n\n",
                "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
            ),
            opens=True,
        ),
        ChatTemplate("tokenizer"),
    )
}


def get_template(name: str) -> Template:
    """Look up a template.

    Args:
        name: A key of `TEMPLATES`.

    Returns:
        The template, not yet bound to a tokenizer.

    Raises:
        InputError: If there is none of that name.
    """  # noqa: DOC502 - ruff takes the function that builds the error for its class
    if name not in TEMPLATES:
        raise UnknownNameError("template", name, TEMPLATES)
    return TEMPLATES[name]
