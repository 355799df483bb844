"""`export --bits 4|8`: plain transformers load it, and what is reported is how far it is from the run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_run import config_of, write_config
from transformers import AutoModelForCausalLM, AutoTokenizer

from mtl_opt import cli
from mtl_opt.batch import task_rows
from mtl_opt.deploy import ExportOptions, export, open_trained
from mtl_opt.deploy.quantized_export import held_out_rows
from mtl_opt.examples.tiny_llama import new_llama
from mtl_opt.training import train

QUICK = {"max_steps": 2, "rows_per_task": 1}
CLS = {"heads": {"anger": {"type": "classification", "labels": ["yes", "no"]}}}


@pytest.fixture(scope="module")
def wide_model(tmp_path_factory, model_folder) -> str:
    """Save a model whose rows are whole blocks of 64 numbers, which bitsandbytes wants on CPUs with AVX-512."""
    folder = tmp_path_factory.mktemp("wide")
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    new_llama(tokenizer, hidden_size=64, num_layers=2, num_heads=4, seed=0).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def run(settings, tmp_path, wide_model):
    """Train a run, with some settings of its own."""

    def made(**changes) -> Path:
        train(config_of({**settings, "model_name_or_path": wide_model, **QUICK, **changes}))
        return tmp_path / "run"

    return made


@torch.no_grad()
def logits_of_run(folder: Path, task: str, row: list[int]) -> torch.Tensor:
    trained = open_trained(folder)
    with task_rows(torch.tensor([trained.tasks.index(task)])):
        return trained.model()(input_ids=torch.tensor([row])).logits.float()


def about(folder: Path) -> dict:
    return json.loads((folder / "export.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("sharing", ["hard", "private_layers"])
def test_what_is_written_is_loaded_by_transformers_and_as_far_off_as_reported(run, tmp_path, caplog, bits, sharing):
    folder = run(sharing=sharing)
    caplog.set_level("INFO")
    found = export(folder, ExportOptions(str(tmp_path / "out"), bits=bits))
    assert about(tmp_path / "out")["bits"] == bits
    rows = held_out_rows(open_trained(folder))
    for task, where in found.items():
        model = AutoModelForCausalLM.from_pretrained(where).eval()
        assert getattr(model, f"is_loaded_in_{bits}bit")
        reported = about(tmp_path / "out")["difference"][task]
        assert reported["held_out"]
        assert reported["rows"] == len(rows[task])
        with torch.no_grad():
            plain = [model(input_ids=torch.tensor([row])).logits.float() for row in rows[task]]
        wanted = [logits_of_run(folder, task, row) for row in rows[task]]
        pairs = list(zip(plain, wanted, strict=True))
        assert reported["max_difference"] == pytest.approx(max(float((a - b).abs().max()) for a, b in pairs), rel=0.05)
        same = torch.cat([(a.argmax(-1) == b.argmax(-1)).flatten().float() for a, b in pairs])
        assert reported["same_choice"] == pytest.approx(float(same.mean()), abs=0.05)  # a CPU with AVX-512 rounds
        assert 0 < reported["max_difference"] < reported["largest"]
        assert f"Task {task} in {bits} bits: outputs, up to" in caplog.text
    assert not list((tmp_path / "out").rglob("unquantised"))


@pytest.mark.slow
def test_a_fresh_process_without_this_package_loads_it(run, tmp_path):
    export(run(), ExportOptions(str(tmp_path / "out"), bits=4))
    torch.save(torch.tensor([[50, 90, 31, 41]]), tmp_path / "tokens.pt")
    script = Path(__file__).parent / "fresh_process.py"
    command = [
        sys.executable,
        str(script),
        str(tmp_path / "tokens.pt"),
        str(tmp_path / "out.pt"),
        str(tmp_path / "out"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = torch.load(tmp_path / "out.pt", weights_only=True)
    wanted = logits_of_run(tmp_path / "run", "qa", [50, 90, 31, 41])
    assert float((found - wanted).abs().max()) < float(wanted.abs().max())


def test_heads_are_compared_by_what_they_answer(run, tmp_path):
    export(run(**CLS), ExportOptions(str(tmp_path / "out"), bits=8))
    found = about(tmp_path / "out")["difference"]["anger"]
    assert found["same_choice"] is not None
    assert found["max_difference"] < found["largest"]
    assert (tmp_path / "out" / "heads.safetensors").exists()


def test_without_the_rows_some_of_our_own_are_compared(run, settings, tmp_path, caplog):
    tasks = {task: {**files, "file": str(tmp_path / "gone.jsonl")} for task, files in settings["tasks"].items()}
    folder = run()
    config = (folder / "config.yaml").read_text(encoding="utf-8")
    for task, files in settings["tasks"].items():
        config = config.replace(files["file"], tasks[task]["file"])
    (folder / "config.yaml").write_text(config, encoding="utf-8")
    caplog.set_level("INFO")
    export(folder, ExportOptions(str(tmp_path / "out"), bits=8))
    assert "The held-out rows of the run cannot be read" in caplog.text
    assert not about(tmp_path / "out")["difference"]["qa"]["held_out"]


@pytest.mark.slow
def test_a_4_bit_base_written_out_in_full_may_be_quantised_again(run, tmp_path):
    export(run(quantization_bit=4), ExportOptions(str(tmp_path / "out"), dequantize=True, bits=4))
    assert about(tmp_path / "out")["difference"]["qa"]["max_difference"] < 2


def test_the_keys_of_llama_factory_are_honoured(run, settings, tmp_path, capsys, wide_model):
    folder = run()
    asked = ["export_quantization_bit=8", "export_size=1", "export_device=auto", "export_legacy_format=false"]
    assert cli.main(["export", str(folder), f"export_dir={tmp_path / 'out'}", *asked]) == 0
    assert about(tmp_path / "out")["bits"] == 8
    own = {
        **settings,
        **QUICK,
        "model_name_or_path": wide_model,
        "export_dir": str(tmp_path / "by yaml"),
        "export_quantization_bit": 4,
    }
    assert cli.main(["export", write_config(tmp_path / "own.yaml", own)]) == 0
    assert about(tmp_path / "by yaml")["bits"] == 4
    assert str(tmp_path / "by yaml") in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--bits", "3"], "`--bits` must be 4 or 8, got 3"),
        (["--bits", "4", "--adapter"], "`--bits 4` quantises merged models, and `--adapter` merges nothing"),
        (["export_quantization_bit=2"], "`export_quantization_bit` must be 4 or 8, got 2"),
        (["--bits", "4", "export_quantization_bit=8"], "is asked for 4 and, by a key `export_*`, for 8"),
        (["export_quantization_bit=4", "export_quantization_dataset=c4.json"], "without calibration rows"),
        (["export_hub_model_id=me/mine"], "nothing is uploaded"),
        (["export_device=cuda"], "`export_device` must be cpu or auto"),
        (["export_legacy_format=true"], "weights are written as safetensors"),
        (["export_bits=4"], "Unknown key of the export `export_bits`"),
        (["export_size=0"], "`export_size` must be at least 1"),
    ],
)
def test_what_cannot_be_had_is_one_sentence(run, tmp_path, capsys, arguments, words):
    folder = run(max_steps=1)
    capsys.readouterr()
    assert cli.main(["export", str(folder), f"export_dir={tmp_path / 'out'}", *arguments]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
