"""The report in a real browser: every control is used in both languages and themes, nothing is loaded or broken."""

import shutil
from contextlib import contextmanager

import pytest
from references.comparison_folder import only_scores, write_comparison

from mtl_opt.report.page.html import write_report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
HOSTILE = "</script><img src=x onerror=alert(1)>"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: `apt-get install chromium` (Debian) brings one"),
]


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """A comparison with hostile and Chinese names, one run of it, and a comparison that lacks all that can lack."""
    folder = tmp_path_factory.mktemp("报告")
    write_comparison(folder / "full", ["sum", "pcgrad", HOSTILE], range(4), ["情绪", "qa", HOSTILE], steps=40)
    write_comparison(folder / "bare", ["sum"], [0], ["qa"], steps=20, baselines=False, conflict=False)
    for path in (folder / "bare" / "sum-seed0").iterdir():
        path.unlink()
    run = folder / "full" / "pcgrad-seed1"
    return {name: write_report(path) for name, path in
            {"full": folder / "full", "run": run, "bare": folder / "bare"}.items()}  # fmt: skip


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM)
        yield found
        found.close()


@contextmanager
def opened(browser, path, width=1200, **settings):
    """Open a page; afterwards it must have said nothing to the console and asked for nothing but itself."""
    context = browser.new_context(viewport={"width": width, "height": 900}, **settings)
    page, troubles = context.new_page(), []
    page.on("console", lambda message: troubles.append(message.text))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("dialog", lambda dialog: troubles.append(dialog.message))
    page.on("request", lambda request: None if request.url == path.as_uri() else troubles.append(request.url))
    page.goto(path.as_uri())
    yield page
    context.close()
    assert troubles == []


USE_EVERY_CONTROL = """() => {
  const fire = (element, value, event) => { element.value = value; element.dispatchEvent(new Event(event)); };
  const each = (selector, use) => {  // a control may draw its section again: what is there is looked up each time
    const count = document.querySelectorAll(selector).length;
    for (let i = 0; i < count; i += 1) {
      const found = document.querySelectorAll(selector)[i];
      if (found) use(found);
    }
    return count;
  };
  const used = {};
  used.summary = each("summary", (e) => e.click());
  used.checkbox = each("input[type=checkbox]", (e) => e.click());
  used.range = each("input[type=range]", (e) => [0, 1, e.max].forEach((v) => fire(e, v, "input")));
  used.select = each("select", (e) => [...e.options].forEach((o) => fire(e, o.value, "change")));
  used.button = each("button:not(.print)", (e) => e.click());
  used.cell = each(".cell[role=button]", (e) => e.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter" })));
  for (const element of document.querySelectorAll("td, rect, g, path")) {
    for (const kind of ["mouseenter", "mousemove", "mouseleave"]) {
      element.dispatchEvent(new MouseEvent(kind, { clientX: 300, clientY: 300 }));
    }
  }
  return used;
}"""
"""Uses every control of the page and points at everything; gives how many there were of each kind."""


@pytest.mark.parametrize(("lang", "theme", "width"), [("en-US", "light", 1200), ("zh-CN", "dark", 390)])
@pytest.mark.parametrize("name", ["full", "run", "bare"])
def test_every_control_works_and_nothing_is_loaded(browser, reports, name, lang, theme, width):
    with opened(browser, reports[name], width, locale=lang, color_scheme=theme) as page:
        assert page.locator("section").count() == {"full": 8, "bare": 8, "run": 7}[name]
        assert page.evaluate("document.documentElement.lang") == ("zh-CN" if lang == "zh-CN" else "en")
        used = page.evaluate(USE_EVERY_CONTROL)
        assert used["button"] > 15
        if name != "bare":
            assert min(used.values()) > 0
        assert page.locator("section").count() == {"full": 8, "bare": 8, "run": 7}[name]
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.locator("img").count() == 0


def test_language_and_theme_are_switched_and_remembered(browser, reports):
    with opened(browser, reports["full"], locale="de-DE", color_scheme="light") as page:
        colour = "getComputedStyle(document.body).backgroundColor"
        light = page.evaluate(colour)
        assert page.locator("#verdict h2").inner_text().endswith("chance?")
        page.get_by_role("button", name="中文").click()
        page.get_by_role("button", name="深色").click()
        assert "偶然" in page.locator("#verdict h2").inner_text()
        assert page.evaluate(colour) != light
        page.reload()
        assert "偶然" in page.locator("#verdict h2").inner_text()
        assert page.evaluate(colour) != light


def wait_until(page, expression):
    """Wait for a change; Playwright's own waiting evaluates strings, which the page's policy forbids."""
    for _ in range(100):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(100)
    raise AssertionError(expression)


OPACITIES = "m => [...document.querySelectorAll(`[data-m='${m}']`)].map(e => Number(getComputedStyle(e).opacity))"
DIMMED = f"Math.max(...({OPACITIES})(0)) < 0.2 && Math.min(...({OPACITIES})(1)) === 1"
CLEAR = f"Math.min(...({OPACITIES})(0)) === 1"


def test_hovering_a_method_dims_the_others_in_every_chart(browser, reports):
    with opened(browser, reports["full"]) as page:
        assert len(page.evaluate(OPACITIES, 0)) > 8
        page.locator(".chip", has_text="pcgrad").hover()
        wait_until(page, DIMMED)
        page.locator("h1").hover()
        wait_until(page, CLEAR)
        page.locator(".chip", has_text="pcgrad").click()
        page.locator("h1").hover()
        wait_until(page, DIMMED)
        page.keyboard.press("Escape")
        wait_until(page, CLEAR)


def test_tables_sort_and_the_numbers_are_those_of_the_summary(browser, reports):
    import json

    from mtl_opt.report.summary.assembly import summarise

    lines = [json.loads(text) for text in (reports["full"].parent / "results.jsonl").read_text("utf-8").splitlines()]
    summary = summarise(lines)
    with opened(browser, reports["full"]) as page:
        heads = page.locator("#table-methods thead button").all_inner_texts()
        column = next(index for index, text in enumerate(heads) if text.startswith("qa"))
        page.locator("#table-methods thead button").nth(column).click()
        cells = page.locator(f"#table-methods tbody tr td:nth-child({column + 1})").all_inner_texts()
        methods = [*summary.methods, summary.baselines]
        means = sorted((method.scores["qa"]["exact_match"].mean for method in methods), reverse=True)
        assert [float(cell.split(" ±")[0]) for cell in cells] == [pytest.approx(mean, abs=6e-4) for mean in means]
        page.locator("#table-methods thead button").nth(column).click()
        turned = page.locator(f"#table-methods tbody tr td:nth-child({column + 1})").all_inner_texts()
        assert turned == cells[::-1]
        assert summary.winner in page.locator(".headline").first.inner_text()


def test_the_slider_shows_the_cosines_of_its_step(browser, reports):
    import json

    rows = (reports["run"].parent / "conflict.jsonl").read_text("utf-8").splitlines()
    with opened(browser, reports["run"], locale="en-US") as page:
        slider = page.locator(".step-input")
        slider.focus()
        slider.press("Home")
        assert page.locator(".step-output").inner_text() == "Step 10"
        shown = page.locator(".matrix").first.locator(".cell-value").all_text_contents()
        cosines = [value for row in json.loads(rows[0])["cosines"] for value in row]
        assert [float(text.replace("−", "-")) for text in shown] == pytest.approx(cosines, abs=0.0051)
        assert "window was not full" in page.locator(".matrices").inner_text()
        page.locator(".play").click()
        wait_until(page, "document.querySelector('.step-output').textContent === 'Step 40'")
        verdicts = set(page.locator(".cell-mark").all_text_contents())
        assert verdicts <= {"✕", "✓", "~"}


def test_empty_states_are_said_in_words(browser, reports):
    with opened(browser, reports["bare"], locale="en-US") as page:
        text = page.locator("main").inner_text()
        for sentence in (
            "Only sum was trained", "no single-task baselines", "One seed only", "one task only", "there are no curves",
            "No shadow combiners", "No predictions were saved",
        ):  # fmt: skip
            assert sentence in text


def test_it_prints_with_all_boxes_open(browser, reports):
    with opened(browser, reports["full"]) as page:
        page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
        assert page.locator("details:not([open])").count() == 0
        assert page.pdf().startswith(b"%PDF")


def headline_of(browser, folder, lines, locale="en-US"):
    import json

    folder.mkdir()
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (folder / "results.jsonl").write_text(text, encoding="utf-8")
    path = write_report(folder)
    with opened(browser, path, locale=locale) as page:
        return page.locator("#verdict .answer-box").inner_text()


def level(method, values, shape=(0.0, 0.002, 0.001, 0.004, 0.003)):
    return [only_scores(method, seed, value and value + shape[seed % 5]) for seed, value in values.items()]


BASE = [only_scores("single", seed, 0.5, task=task) for seed in range(8) for task in ("qa", "情感")]
FIVE = range(5)


@pytest.mark.parametrize(("locale", "word", "lost"), [("en-US", "etter than", "not"), ("zh-CN", "优于", "没有")])
def test_better_stands_on_the_page_only_where_it_was_tested(browser, tmp_path, locale, word, lost):
    best, other = level("sum", dict.fromkeys(FIVE, 0.6)), level("mean", dict.fromkeys(FIVE, 0.5), (0.003, 0, 0, 0, 0))
    diverged = level("pcgrad", dict.fromkeys(FIVE, 0.7) | {0: None})
    alone = headline_of(browser, tmp_path / "a", [*best, *diverged, *BASE], locale)
    assert word not in alone
    assert lost in alone
    found = headline_of(browser, tmp_path / "b", [*best, *other, *diverged, *BASE], locale)
    assert f"{word} mean" in found
    assert "pcgrad" not in found
    assert "1 other" not in found


def test_the_page_judges_over_the_seeds_that_all_methods_share(browser, tmp_path):
    lines = [*level("sum", dict.fromkeys(FIVE, 0.50) | {7: 0.95}), *level("pcgrad", dict.fromkeys(FIVE, 0.52)), *BASE]
    found = headline_of(browser, tmp_path / "more", lines)
    assert found.startswith("pcgrad wins: Δm +4.4 %")
    assert "Compared over the seeds that all methods with a finite score have: 0, 1, 2, 3, 4." in found
    none = [*level("sum", dict.fromkeys([0, 1], 0.5)), *level("pcgrad", dict.fromkeys([2, 3], 0.6)), *BASE]
    assert headline_of(browser, tmp_path / "none", none).startswith("Nothing can be compared: no seed is shared")


def test_the_page_never_passes_over_worse(browser, tmp_path):
    import json
    import re

    lines = [
        *level("sum", dict.fromkeys(FIVE, 0.6)),
        *level("mean", dict.fromkeys(FIVE, 0.5), (0.003, 0, 0, 0, 0)),
        *BASE,
    ]
    headline_of(browser, tmp_path / "worse", lines)
    path = tmp_path / "worse" / "report.html"
    text = path.read_text(encoding="utf-8")
    (data,) = re.findall(r'id="data">(.*?)</script>', text, re.DOTALL)
    changed = json.loads(data)
    changed["summary"]["comparisons"][0]["verdict"] = "worse"
    path.write_text(text.replace(data, json.dumps(changed)), encoding="utf-8")
    with opened(browser, path, locale="en-US") as page:
        assert "but a test finds it worse than mean." in page.locator(".headline").first.inner_text()


@pytest.mark.parametrize(("monitor_only", "taken"), [(False, "cagrad"), (True, "sum")])
def test_the_combiner_whose_update_was_taken_is_none_of_the_others(browser, tmp_path, monitor_only, taken):
    import json

    lines = write_comparison(tmp_path, ["cagrad"], [0], ["情绪", "qa"], steps=20, baselines=False,
                             shadows=["sum", "cagrad", "mgda"])  # fmt: skip
    lines[0]["method"] = "cagrad · norm_matched"
    folder = tmp_path / lines[0]["run"]
    if monitor_only:
        config = lines[0]["config"] | {"monitor_only": True}
        (folder / "config.yaml").write_text(json.dumps(config, ensure_ascii=False), encoding="utf-8")
    else:
        (tmp_path / "results.jsonl").write_text(json.dumps(lines[0], ensure_ascii=False), encoding="utf-8")
    with opened(browser, write_report(folder if monitor_only else tmp_path), locale="en-US") as page:
        shown = page.locator("#shadows text.label.strong, #shadows td .strong").all_text_contents()
        assert shown == [taken, taken]
        lead = page.locator("#shadows .lead").inner_text()
        assert taken not in lead
        if monitor_only:
            assert "sum (monitor only; cagrad watched)" in page.locator("#results .headline").inner_text()
