"""The page in Chromium: nothing in the console, figures drawn, filter, theme and copying work."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from synque_select.records.correlation import correlate
from synque_select.records.correlation_file import save_correlations
from synque_select.records.ranking_file import save_ranking
from synque_select.records.run_folder import write_json
from synque_select.report.examples_and_map import write_examples, write_map
from synque_select.report.page import write_report
from tests.records.records_data import SCRIPT, make_ranking, make_record
from tests.report.chromium import Browser, chromium, open_browser
from tests.report.test_tables import RESULT_STATE

PROGRAM = chromium()
pytestmark = pytest.mark.skipif(
    PROGRAM is None, reason="needs Chromium: on PATH, or named by the environment variable CHROMIUM"
)
NAMES = [SCRIPT, "b", "c", "d", "e\" onload='alert(1)", f"long-{'name_' * 30}"]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits") / "20261129T140704Z-be14600f"
    save_ranking(make_ranking(NAMES, messages=(f"message {SCRIPT}",)), folder)
    save_correlations(correlate([make_record(n, i / 9) for i, n in enumerate(NAMES)]), folder)
    write_json(folder / "result.json", {**RESULT_STATE, "wall_s": {"fit": 2.0}})
    generator = torch.Generator().manual_seed(0)
    rows = {name: torch.randn(30, 8, generator=generator) for name in NAMES}
    real = torch.randn(20, 8, generator=generator)
    write_map(folder, real, rows)
    texts = [f"{SCRIPT} {'word ' * 100}"] * 30
    write_examples(folder, dict.fromkeys(NAMES, texts), embeddings=(real, rows))
    return write_report(folder)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert PROGRAM is not None
    with open_browser(PROGRAM) as browser:
        yield browser


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("dark", [False, True])
def test_nothing_in_the_console_and_nothing_to_the_side(
    browser: Browser, page: Path, width: int, dark: bool
):
    browser.open(page, width=width, dark=dark)
    assert browser.run("document.documentElement.scrollWidth") <= width
    browser.run("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.console == []
    assert browser.requests() == [page.resolve().as_uri()]
    # the paper is what the reader's system asks for
    pixel = Image.open(io.BytesIO(browser.screenshot())).convert("L").getpixel((1, 1))
    assert (pixel < 60) == dark


def test_every_figure_is_drawn(browser: Browser, page: Path):
    browser.open(page)
    boxes = browser.run(
        "[...document.querySelectorAll('figure')].map(figure =>"
        " [...figure.querySelectorAll('circle, path, .bar')].filter(mark => {"
        "  const box = mark.getBoundingClientRect(), own = figure.getBoundingClientRect();"
        "  return box.width + box.height > 0 && box.left >= own.left - 1"
        "   && box.right <= own.right + 1; }).length)"
    )
    assert len(boxes) == len(browser.run("[...document.querySelectorAll('figure')].map(() => 1)"))
    assert min(boxes) >= 1
    assert browser.run("getComputedStyle(document.querySelector('path.on')).strokeWidth") == "4.5px"


def test_texts_of_the_data_stay_texts(browser: Browser, page: Path):
    browser.open(page)
    assert browser.run("document.scripts.length") == 1
    assert browser.run("document.querySelectorAll('[onload]').length") == 0
    assert SCRIPT in browser.run("document.querySelector('h1').textContent")


def test_a_candidate_is_chosen_on_the_map(browser: Browser, page: Path):
    browser.open(page)
    browser.run(
        "(() => { const filter = document.querySelector('select.filter');"
        f" filter.value = {NAMES[0]!r}; filter.dispatchEvent(new Event('change')); }})()"
    )
    chosen = "[...document.querySelectorAll('path.chosen')].map(path => path.dataset.n)"
    assert browser.run(chosen) == [NAMES[0]]
    stroke = "getComputedStyle(document.querySelector('{}')).strokeOpacity"
    assert browser.run(stroke.format("path.chosen")) == "0.9"
    assert browser.run(stroke.format("svg.filtered path.off:not(.chosen)")) == "0.22"
    browser.run(
        "(() => { const filter = document.querySelector('select.filter');"
        " filter.selectedIndex = 0; filter.dispatchEvent(new Event('change')); })()"
    )
    assert browser.run(chosen) == []


def test_the_theme_is_switched_and_kept(browser: Browser, page: Path):
    browser.open(page, dark=False)
    color = "getComputedStyle(document.body).backgroundColor"
    light = browser.run(color)
    browser.run("document.getElementById('theme').click()")
    dark = browser.run(color)
    assert dark != light
    browser.open(page, dark=False)
    assert browser.run(color) == dark
    browser.run("document.getElementById('theme').click()")
    assert browser.run(color) == light
    browser.run("localStorage.clear()")


def test_the_summary_is_copied_as_markdown(browser: Browser, page: Path):
    browser.open(page)
    browser.send(
        "Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"]
    )
    browser.run("document.getElementById('copy').click()")
    browser.run("new Promise(done => setTimeout(done, 300))")
    assert browser.run("document.getElementById('copy').textContent") == "Copied"
    assert browser.run("document.getElementById('markdown').value").startswith("## Train on")


def test_a_name_is_read_on_hovering_in_every_chart(browser: Browser, page: Path):
    browser.open(page)
    browser.run(
        "document.querySelector('.area circle[data-n=\"b\"]')"
        ".dispatchEvent(new PointerEvent('pointerenter'))"
    )
    hot = browser.run(
        "[...document.querySelectorAll('circle.hot')].map(circle => circle.dataset.n)"
    )
    assert hot == ["b", "b"]
    read = browser.run("document.querySelector('output').textContent")
    assert read.startswith("b: val_acc 0.111")


def test_print_is_light_and_without_buttons(browser: Browser, page: Path):
    browser.open(page, dark=True)
    browser.send("Emulation.setEmulatedMedia", media="print")
    color = "getComputedStyle(document.body).backgroundColor"
    assert browser.run(color) == "rgb(255, 255, 255)"
    assert browser.run("getComputedStyle(document.querySelector('.tools')).display") == "none"
    browser.send("Emulation.setEmulatedMedia", media="screen")
