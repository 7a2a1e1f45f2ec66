"""The report in a real browser: nothing overflows a phone, nothing is fetched, tables sort, text stands out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

import clip_core
from chromium import Browser, browser, find_chromium
from clip_eval import evaluate, open_dataset
from clip_eval.report import write_report
from report_cases import write_showcase

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def tab() -> Iterator[Browser]:
    path = find_chromium()
    if path is None:
        pytest.skip("no chromium here; on Debian: apt-get install chromium")
    with browser(path) as opened:
        yield opened


@pytest.fixture(scope="module")
def pages(digits, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    torch.manual_seed(11)
    bundle = clip_core.create("tiny")
    for name in ("digits", "digit_scenes"):
        evaluate(bundle, open_dataset(digits / name), model_name="untrained").save(folder / "measured")
    return {
        "one model": write_report(folder / "measured", folder / "one.html"),
        "everything": write_report(write_showcase(folder / "showcase"), folder / "everything.html"),
    }


@pytest.mark.parametrize("name", ["one model", "everything"])
@pytest.mark.parametrize(("width", "dark"), [(390, False), (390, True), (1280, False), (1280, True)])
def test_page_fits(tab: Browser, pages: dict[str, Path], tmp_path: Path, name: str, width: int, dark: bool) -> None:
    tab.open(pages[name], width=width, dark=dark, mobile=width < 500)
    tab.ask("document.querySelectorAll('details').forEach(part => part.open = true)")
    assert tab.requests == []
    assert tab.errors == []
    # What is wider than the page may only be inside something that scrolls by itself.
    wide = tab.ask(
        """[...document.querySelectorAll("body *")].filter(part => {
             const box = part.getBoundingClientRect();
             return box.right > innerWidth + 1 && !part.closest(".scroll, .many, pre, svg, .hidden, thead");
           }).slice(0, 5).map(part => part.outerHTML.slice(0, 200)).join("\\n")"""
    )
    assert wide == ""
    assert tab.ask("document.documentElement.scrollWidth") <= width
    # Nothing that a reader needs is smaller than 11 pixels on the phone.
    assert tab.ask(
        """Math.min(...[...document.querySelectorAll("p, td, th, dd, li, .span, .sub")]
           .filter(part => part.offsetWidth).map(part => parseFloat(getComputedStyle(part).fontSize)))"""
    ) >= 11  # fmt: skip
    picture = Image.open(tab.screenshot(tmp_path / "page.png", height=900)).convert("L")
    assert (picture.getpixel((2, 2)) < 60) == dark


def test_text_is_readable_against_its_ground(tab: Browser, pages: dict[str, Path]) -> None:
    contrast = """(() => {
      const parse = text => text.match(/[\\d.]+/g).map(Number);
      const linear = v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
      const light = ([r, g, b]) => .2126 * linear(r / 255) + .7152 * linear(g / 255) + .0722 * linear(b / 255);
      const ground = part => {
        for (; part; part = part.parentElement) {
          const colour = parse(getComputedStyle(part).backgroundColor);
          if (colour.length < 4 || colour[3] === 1) return colour;
        }
        return [255, 255, 255];
      };
      return Math.min(...["p", ".soft", ".sub", ".flag", ".span", ".best", ".better", ".worse", "a"].flatMap(name =>
        [...document.querySelectorAll(name)].slice(0, 3).map(part => {
          const both = [light(parse(getComputedStyle(part).color)), light(ground(part))];
          return (Math.max(...both) + .05) / (Math.min(...both) + .05);
        })));
    })()"""
    for dark in (False, True):
        tab.open(pages["everything"], width=390, dark=dark, mobile=True)
        assert tab.ask(contrast) >= 4.5


def test_tables_sort_by_their_heads(tab: Browser, pages: dict[str, Path]) -> None:
    tab.open(pages["one model"], width=1280)
    column = (
        "[...document.querySelector('table.sortable').tBodies[0].rows].map(row => Number(row.cells[2].dataset.value))"
    )
    before = tab.ask(column)
    assert len(before) == 10
    tab.ask("document.querySelector('table.sortable').tHead.rows[0].cells[2].querySelector('button').click()")
    assert tab.ask(column) == sorted(before)
    tab.ask("document.querySelector('table.sortable').tHead.rows[0].cells[2].querySelector('button').click()")
    assert tab.ask(column) == sorted(before, reverse=True)


def test_no_script_but_its_own_runs(tab: Browser, pages: dict[str, Path], tmp_path: Path) -> None:
    page = tmp_path / "planted.html"
    planted = '<main><script>document.title = "taken over"</script><img src="x" onerror="document.title = \'too\'">'
    planted += '<img src="http://127.0.0.1:9/x.png">'
    page.write_text(pages["one model"].read_text(encoding="utf-8").replace("<main>", planted, 1), encoding="utf-8")
    tab.open(page, width=390, mobile=True)
    assert tab.ask("document.title") == "CLIP evaluation"
    assert any("Content Security Policy" in error for error in tab.errors)
