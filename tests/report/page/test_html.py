import json
import re
import time

import pytest
from references.comparison_folder import METHODS, write_comparison

from mtl_opt.errors import InputError
from mtl_opt.report.page.html import embedded, page, write_report

HOSTILE = "</script><img src=x onerror=alert(1)>\u2028<!--"


def data_of(text):
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    return json.loads(found)


def test_hostile_names_come_back_unchanged_and_end_no_element(tmp_path):
    write_comparison(tmp_path, ["sum", HOSTILE], [0], ["情绪", HOSTILE], steps=20)
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert data_of(text)["tasks"] == ["情绪", HOSTILE]
    assert "<img" not in text
    assert text.count("</script>") == 2


def test_the_page_loads_nothing(tmp_path):
    write_comparison(tmp_path, ["sum"], [0], steps=20)
    text = write_report(tmp_path).read_text(encoding="utf-8")
    program = text.replace("http://www.w3.org/2000/svg", "")  # a name, no address
    assert "://" not in program.split('id="data"')[0] + program.split("</script>", 1)[1]
    assert not re.search(
        r"""\bsrc=|@import|url\(|<link [^>]*href="(?!data:)|fetch\(|XMLHttpRequest|WebSocket""", program
    )
    assert "default-src 'none'" in text
    assert "innerHTML" not in text


def test_a_half_character_from_a_tokenizer_can_be_written():
    assert json.loads(embedded({"text": "a\ud83d"})) == {"text": "a?"}


def test_numbers_that_json_lacks_are_a_fault_of_ours():
    with pytest.raises(ValueError, match="JSON"):
        embedded({"loss": float("nan")})


def test_data_that_looks_like_a_placeholder_stays_data():
    assert data_of(page({"task": "/*SCRIPT*/ /*DATA*/ /*STYLE*/"}))["task"] == "/*SCRIPT*/ /*DATA*/ /*STYLE*/"


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    write_comparison(tmp_path, ["sum"], [0], steps=20)
    (tmp_path / "report.html").mkdir()
    with pytest.raises(InputError, match=r"report\.html` cannot be written"):
        write_report(tmp_path)
    assert not (tmp_path / "report.html.partial").exists()


def test_every_text_has_both_languages_and_every_used_text_exists():
    from mtl_opt.report.page.html import SCRIPTS, page_file

    program = {name: page_file(f"{name}.js") for name in SCRIPTS}
    known = dict(re.findall(r"^  (\w+): (\[.*\]),$", program["texts"], re.MULTILINE))
    for key, pair in known.items():
        english, chinese = json.loads(pair)
        assert set(re.findall(r"\{\w+\}", english)) == set(re.findall(r"\{\w+\}", chinese)), key
        assert english != chinese or key == "zero_reference"
    used = {key for text in program.values() for key in re.findall(r'\bt\("(\w+)"', text)}
    assert used <= set(known)


@pytest.mark.slow
def test_two_hundred_runs_take_little_time_and_room(tmp_path):
    shadows = [f"shadow_{i}" for i in range(40)]
    lines = write_comparison(
        tmp_path, METHODS, range(16), steps=400, shadows=shadows, layers=[f"model.layers.{i}.x" for i in range(28)]
    )
    assert len(lines) == 208
    start = time.process_time()  # of this process: a busy machine must not fail the test
    path = write_report(tmp_path)
    assert time.process_time() - start <= 20
    assert path.stat().st_size <= 5e6


@pytest.mark.slow
def test_two_hundred_methods_of_many_tasks_stay_small(tmp_path):
    methods = [f"{name} · {rate}" for name in METHODS for rate in range(20)]
    write_comparison(tmp_path, methods, [0], [f"task {i}" for i in range(6)], steps=100)
    assert write_report(tmp_path).stat().st_size <= 5e6
