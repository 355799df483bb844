"""An `output_dir` that must not be written to is refused in one sentence, and nothing in it is touched."""

import os
from pathlib import Path

import pytest
from tiny_run import build_model


@pytest.mark.parametrize("verb", ["train", "compare"])
def test_an_output_folder_that_is_a_file(settings, refused, tmp_path, verb):
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    for output in ("file", "file/below"):
        sentence = refused({**settings, "output_dir": str(tmp_path / output)}, verb=verb)
        assert "`output_dir`" in sentence
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("verb", ["train", "compare"])
@pytest.mark.parametrize("name", ["/proc/mtl", "x" * 300])
def test_an_output_folder_that_cannot_be_written(settings, refused, tmp_path, verb, name):
    assert "`output_dir`" in refused({**settings, "output_dir": str(tmp_path / name)}, verb=verb)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_output_folder_without_permission(settings, refused, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    assert "`output_dir`" in refused({**settings, "output_dir": str(tmp_path / "locked" / "run")})


@pytest.mark.parametrize("name", ["config.yaml", "trainer_log.jsonl", "results.jsonl", "adapter_config.json"])
def test_an_output_folder_that_holds_another_run(settings, refused, name):
    output = Path(settings["output_dir"])
    output.mkdir()
    (output / name).write_text("{}", encoding="utf-8")
    assert "already holds a run" in refused(settings)
    assert [path.name for path in output.iterdir()] == [name]


@pytest.mark.parametrize("name", ["results.jsonl", "model.safetensors"])
def test_resuming_does_not_write_into_a_folder_that_holds_no_run(settings, refused, name):
    output = Path(settings["output_dir"])
    output.mkdir()
    (output / name).write_text("", encoding="utf-8")
    assert "`output_dir`" in refused(settings, "resume_from_checkpoint=true")
    assert [path.name for path in output.iterdir()] == [name]


def test_the_base_model_is_not_overwritten(settings, refused, tmp_path):
    model_folder = build_model(tmp_path / "m")
    before = sorted(os.listdir(model_folder))
    for resume in ("true", "false"):
        refused(
            {**settings, "model_name_or_path": model_folder, "output_dir": model_folder},
            f"resume_from_checkpoint={resume}",
        )
    assert sorted(os.listdir(model_folder)) == before
