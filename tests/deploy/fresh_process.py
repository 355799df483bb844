"""Run in a process of its own, without mtl_opt: `python fresh_process.py TOKENS.pt OUT.pt MODEL [ADAPTER]`."""

import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def main(tokens: str, out: str, folder: str, *adapter: str) -> None:
    """Save the logits of an exported model, or of its base with an exported adapter."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    if adapter:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapter[0])
    else:
        assert AutoTokenizer.from_pretrained(folder).pad_token == "<pad>"
        assert model.generation_config.eos_token_id == model.config.eos_token_id
    assert "mtl_opt" not in sys.modules
    with torch.no_grad():
        torch.save(model.eval()(input_ids=torch.load(tokens, weights_only=True)).logits, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
