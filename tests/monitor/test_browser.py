"""TensorBoard itself on what a run writes, opened in a real browser."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import torch
from tiny_run import build_data, build_model, config_of

from mtl_opt.monitor import write_hparams
from mtl_opt.training import train

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: `apt-get install chromium` (Debian) brings one"),
]

IGNORED = re.compile(r"favicon|third-party cookie|was preloaded using link preload|google", re.IGNORECASE)
"""What TensorBoard's page says to the console on any data."""


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """Two runs with Chinese task names, long enough for corrected cosines, each with its row of the HParams table."""
    folder = tmp_path_factory.mktemp("比较")
    settings = {
        "model_name_or_path": build_model(folder / "model"), "tasks": build_data(folder / "data"), "lora_rank": 2,
        "rows_per_task": 2, "learning_rate": 0.01, "max_steps": 12, "cutoff_len": 48, "logging_steps": 4,
        "save_steps": None, "max_new_tokens": 3, "gradient_window": 20,
    }  # fmt: skip
    for combiner in ("pcgrad", "gradnorm"):
        output = folder / "runs" / combiner
        results = train(config_of({**settings, "combiner": combiner, "output_dir": str(output)}))
        metrics = {key: value for key, value in results.items() if key.startswith("eval_")}
        write_hparams(output / "runs", {"combiner": combiner, "方法": "测试", "seed": 42}, metrics)
    torch.set_num_threads(1)
    return folder / "runs"


@pytest.fixture(scope="module")
def server(logs):
    """Serve the folder on this machine alone, and end the server."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logs), "--host", "127.0.0.1"]
    with (logs.parent / "tensorboard.log").open("wb") as said:
        process = subprocess.Popen(
            [*command, "--port", str(port), "--load_fast", "false"],
            stdout=said, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_until(lambda: b"angle" in _get(f"{address}/data/plugin/scalars/tags"), process)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)


def _get(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read()


def _wait_until(there, process):
    for _ in range(240):
        assert process.poll() is None, "TensorBoard ended"
        try:
            if there():
                return
        except OSError:
            pass
        time.sleep(0.5)
    raise AssertionError("TensorBoard did not answer")


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser: the group `test`")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser, server):
    """Open a tab; every request stays on this machine, and no error may reach the console."""
    errors, tab = [], browser.new_page(viewport={"width": 1500, "height": 1100})
    tab.set_default_timeout(90_000)
    tab.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.on("response", lambda answer: errors.append(f"{answer.status} {answer.url}") if answer.status >= 400 else None)
    tab.route(re.compile(".*"), lambda route: route.continue_() if server in route.request.url else route.abort())
    yield tab
    shots = os.environ.get("MTL_OPT_SCREENSHOTS")
    if shots:
        name = re.sub(r"\W+", "_", tab.url.split("#")[-1]) or "start"
        tab.screenshot(path=str(Path(shots) / f"tensorboard_{name}.png"))
    tab.close()
    assert [error for error in errors if not IGNORED.search(error) and "ERR_FAILED" not in error] == []


def test_scalars_and_pictures_are_shown(page, server):
    page.goto(f"{server}/#timeseries")
    for card in ("train/condition_number", "train/grad_cos_qa_摘要", "shadow/angle_mgda", "train/layer_cosines"):
        page.get_by_role("combobox", name="Filter tags (regex)").fill(card.split("/")[1])
        page.get_by_text(card.split("/")[1], exact=False).first.wait_for()
    page.get_by_role("combobox", name="Filter tags (regex)").fill("layer_cosines|grad_cosines$")
    page.locator("img").first.wait_for()
    assert page.locator("img").first.evaluate("image => image.complete && image.naturalWidth > 100")


def test_the_layout_has_its_panels(page, server):
    page.goto(f"{server}/#custom_scalars")
    for title in ("gradient conflict", "shadow combiners", "tasks"):
        page.get_by_text(title, exact=False).first.wait_for()
    page.get_by_text("cosines without sampling noise").first.wait_for()
    page.get_by_text("angle to the update taken (degrees)").first.wait_for()


def test_the_table_of_settings_has_a_row_per_run(page, server):
    page.goto(f"{server}/#hparams")
    for text in ("gradnorm", "pcgrad", "方法", "测试"):
        page.get_by_text(text, exact=False).first.wait_for()
    page.get_by_text("eval_摘要_loss", exact=False).first.wait_for()


def test_histograms_and_texts_are_shown(page, server):
    page.goto(f"{server}/#histograms")
    page.get_by_text("grad_cosines_of_steps", exact=False).first.wait_for()
    page.goto(f"{server}/#text")
    page.get_by_text("model_name_or_path", exact=False).first.wait_for()
    page.get_by_text("摘要", exact=False).first.wait_for()
