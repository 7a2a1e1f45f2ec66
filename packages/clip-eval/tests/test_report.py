"""The report: one page that needs nothing else, escapes what it shows, and reads damaged logs honestly."""

from __future__ import annotations

import html.parser
import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import clip_core
from clip_core.errors import ConfigError, DataError
from clip_eval import evaluate, open_dataset
from clip_eval.evaluation import Options
from clip_eval.report import render_report, write_report
from clip_eval.training_log import loss_curve, nice_ticks, read_training


class Page(html.parser.HTMLParser):
    """Collects what a test asks of a page: tags with their attributes, and the visible text."""

    void = frozenset({"meta", "img", "br", "line", "polygon", "polyline"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))

    def find(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def results(digits, tmp_path_factory) -> Path:
    torch.manual_seed(11)
    bundle = clip_core.create("tiny")
    folder = tmp_path_factory.mktemp("results")
    for name in ("digits", "digit_scenes"):
        evaluate(bundle, open_dataset(digits / name), model_name="untrained").save(folder)
    return folder


def write_run(folder: Path, steps: list[Any], tail: str = "", config: str = '{"lr": 0.001}') -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(config)
    lines = [step if isinstance(step, str) else json.dumps(step) for step in steps]
    (folder / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines) + tail)
    return folder


def step(number: int, loss: float | None, **more: Any) -> dict[str, Any]:
    return {"step": number, "epoch": 0, "samples_seen": 8 * number, "loss": loss, "samples_per_second": 100.0, **more}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "my-run", [step(n, 4 / n) for n in range(1, 401)])


def test_page_is_whole_and_loads_nothing(results: Path, run: Path) -> None:
    page = Page(render_report(results, training=run, title="Digits"))
    assert page.open == []
    assert not page.find("link")
    assert page.find("script") == [{}]  # the page's own, which sorts tables
    for tag, attributes in page.tags:
        for name in ("src", "href", "xlink:href", "srcset", "data", "action"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#")), (tag, name, value)
    assert "url(" not in render_report(results)
    assert {a["href"] for a in page.find("a")} <= {f"#{a.get('id')}" for _, a in page.tags}


def test_page_says_what_the_records_say(results: Path, run: Path) -> None:
    page = Page(render_report(results, training=run, title="Digits"))
    data = json.loads(next(results.glob("digits.*.json")).read_text())
    acc1 = data["metrics"]["acc1"]
    assert f"{100 * acc1['value']:.1f} %" in page.text
    assert f"95 % interval {100 * acc1['low']:.1f} % to {100 * acc1['high']:.1f} %" in page.text
    for words in (
        "Digits",
        "untrained",
        "does not name its writers",
        "Text to image, R@1",
        "Image to text, R@10",
        "a zero to the left of",
        data["model"]["weights_sha256"],
        data["versions"]["torch"],
        "“a handwritten {c}”",
        "my-run",
        "chance 10.0 %",
    ):
        assert words in page.text
    row = data["details"]["confusion"][3]
    cells = re.search(r"three((?: (?:\d+|·)){10}) ", page.text[page.text.index("Confusion matrix") :])
    assert [0 if cell == "·" else int(cell) for cell in cells[1].split()] == row


def test_page_can_be_read_without_colours_and_pictures(results: Path, run: Path) -> None:
    page = Page(render_report(results, training=run))
    (root,) = page.find("html")
    assert root["lang"] == "en"
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.find("meta")
    images = page.find("img")
    tests = [image for image in images if image["alt"].startswith("Test picture")]
    assert 24 <= len(tests) <= 72
    assert all(re.match(r"Test picture s\d{7}: \w+", image["alt"]) for image in tests)
    found = [image for image in images if image not in tests]
    assert found
    assert all(re.match(r"Picture \d found: (right|wrong)$|The right picture$", image["alt"]) for image in found)
    assert all(cell.get("scope") in ("row", "col", "colgroup") for cell in page.find("th"))
    curve, diagram = page.find("svg")
    assert re.match(r"Training loss: [\d.]+ around step \d", curve["aria-label"])
    assert re.match(r"Reliability diagram. stated [\d.]+ %, right [\d.]+ %, n \d", diagram["aria-label"])
    # Right and wrong are told by a mark and by a word, not by a colour only.
    assert "✓" in page.text
    assert "(wrong)" in page.text


def test_captions_and_names_are_escaped(bundle, make_retrieval, make_classification, tmp_path: Path) -> None:
    evil = '<script>alert("x")</script><img src=http://evil.example/x.png onerror=alert(1)>&amp;'
    folder = make_retrieval([evil, "a dog", "an owl"], name="pairs <b>bold")
    evaluate(bundle, open_dataset(folder), model_name=evil).save(tmp_path / "results")
    names = make_classification(classnames=f"{evil}\n'\"><b>\nowl\n", templates="<i>{c}\n")
    evaluate(bundle, open_dataset(names), model_name=evil).save(tmp_path / "results")
    run = write_run(tmp_path / "run", [step(1, 2.0)], config=json.dumps({"note": evil}))
    page = Page(render_report(tmp_path / "results", training=run, title=evil))
    assert page.open == []
    assert page.find("script") == [{}]
    assert not page.find("b")
    assert not page.find("i")
    assert all(image["src"].startswith("data:image/png;base64,") for image in page.find("img"))
    assert evil in page.text


def test_a_large_set_lists_confusions_instead_of_a_matrix(bundle, make_classification, tmp_path: Path) -> None:
    names = [f"class number {n}" for n in range(40)]
    folder = make_classification([str(n) for n in range(40)], classnames="\n".join(names) + "\n")
    evaluate(bundle, open_dataset(folder)).save(tmp_path / "results")
    page = Page(render_report(tmp_path / "results"))
    assert "Confusion matrix" not in page.text
    assert re.search(r"class number \d+ taken for class number \d+ \(1 of 1\)", page.text)
    assert not any("Training loss" in svg["aria-label"] for svg in page.find("svg"))  # no training given, no curve


def test_excluded_pictures_are_on_the_page(bundle, make_retrieval, tmp_path: Path, png) -> None:
    folder = make_retrieval(["a cat", "a dog", "an owl"], [png(0), b"broken", png(2)])
    evaluate(bundle, open_dataset(folder)).save(tmp_path / "results")
    assert "1 of 3 pictures were left out because they do not decode" in Page(render_report(tmp_path / "results")).text


def test_two_models_are_told_apart(bundle, make_classification, tmp_path: Path) -> None:
    dataset = open_dataset(make_classification())
    evaluate(bundle, dataset, model_name="first").save(tmp_path / "results")
    with torch.no_grad():
        bundle.model.visual.proj.neg_()
    evaluate(bundle, dataset, model_name="second").save(tmp_path / "results")
    text = Page(render_report(tmp_path / "results")).text
    assert "animals Accuracy" in text
    assert "A closer look at first" in text
    assert "A closer look at second" in text
    assert "first second Chance" in text


def test_two_records_of_one_model_are_told_apart(bundle, make_classification, tmp_path: Path) -> None:
    dataset = open_dataset(make_classification())
    paths = [
        evaluate(bundle, dataset, options=Options(templates=prompts)).save(tmp_path / "results")
        for prompts in (None, ["{c}"])
    ]
    text = Page(render_report(tmp_path / "results")).text
    for path in paths:
        assert f"animals (split test, settings {path.stem.split('.')[-1]})" in text


def test_write_report(results: Path, tmp_path: Path) -> None:
    path = write_report(results, tmp_path / "new" / "report.html")
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    with pytest.raises(ConfigError, match="cannot be written"):
        write_report(results, tmp_path / "new")


def test_missing_companions_are_named(bundle, make_classification, tmp_path: Path) -> None:
    path = evaluate(bundle, open_dataset(make_classification())).save(tmp_path / "results")
    next(path.with_suffix(".images").iterdir()).unlink()
    with pytest.raises(DataError, match=r"\.png: missing picture"):
        render_report(tmp_path / "results")
    path.with_suffix(".samples.jsonl").write_text('{"index": 0}\n')
    with pytest.raises(DataError, match="not the samples of a record"):
        render_report(tmp_path / "results")
    samples = path.with_suffix(".samples.jsonl")
    samples.rename(tmp_path / "elsewhere.jsonl")
    samples.symlink_to(tmp_path / "elsewhere.jsonl")
    with pytest.raises(DataError, match="a link, so not the samples"):
        render_report(tmp_path / "results")


def test_only_pictures_of_the_record_are_embedded(bundle, make_classification, tmp_path: Path, png) -> None:
    path = evaluate(bundle, open_dataset(make_classification())).save(tmp_path / "results")
    folder = path.with_suffix(".images")
    picture, whole = folder / "0.png", (folder / "0.png").read_bytes()
    (tmp_path / "priv.png").write_bytes(whole)

    def refused(message: str) -> None:
        with pytest.raises(DataError, match=message):
            render_report(tmp_path / "results")

    picture.write_bytes(b"a secret")
    refused(r"0\.png: not a PNG picture")
    picture.unlink()
    picture.mkdir()
    refused(r"0\.png: a link or no regular file")
    picture.rmdir()
    picture.symlink_to(tmp_path / "priv.png")
    refused(r"0\.png: a link or no regular file")
    picture.unlink()
    picture.write_bytes(whole)
    render_report(tmp_path / "results")
    # The results folder may be a link, the folder of the pictures may not.
    (tmp_path / "link").symlink_to(tmp_path / "results")
    assert Page(render_report(tmp_path / "link")).find("img")
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    refused("a link or no regular file")


@pytest.mark.parametrize("index", ["../../priv", 1.0, True, -1, None])
def test_an_index_is_a_whole_number(bundle, make_classification, tmp_path: Path, index: Any) -> None:
    path = evaluate(bundle, open_dataset(make_classification())).save(tmp_path / "results")
    samples = path.with_suffix(".samples.jsonl")
    lines = [json.loads(line) for line in samples.read_text().splitlines()]
    lines[0]["index"] = index
    samples.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    with pytest.raises(DataError, match=r"samples\.jsonl: .*not a whole number"):
        render_report(tmp_path / "results")


def test_curve_follows_the_losses(run: Path) -> None:
    curve = loss_curve(read_training(run), points=100)
    (line,) = curve.lines
    points = [tuple(map(float, pair.split(","))) for pair in line.split()]
    assert len(points) == 100
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    assert [y for _, y in points] == sorted(y for _, y in points)  # the loss falls, so the curve goes down the page
    assert all(0 <= value <= 100 for pair in points for value in pair)
    top = float(curve.y_ticks[-1].label)
    assert curve.samples[0][1] == pytest.approx((4 + 2 + 4 / 3 + 1) / 4)
    assert points[0][1] == pytest.approx(100 * (top - curve.samples[0][1]) / top, abs=0.01)


def test_losses_that_are_not_numbers_leave_a_gap(tmp_path: Path, results: Path) -> None:
    steps = [step(1, 3.0), step(2, None, finite=False), step(3, 2.0), step(4, 1.0)]
    folder = write_run(tmp_path / "run", steps, tail='{"step": 5, "lo')
    log = read_training(folder)
    assert log.cut
    assert len(loss_curve(log).lines) == 2
    text = Page(render_report(results, training=folder)).text
    assert "Steps whose loss was not a number 1" in text
    assert "its last line is cut short" in text


def test_a_run_without_any_finite_loss(tmp_path: Path, results: Path) -> None:
    folder = write_run(tmp_path / "run", [step(1, None), step(2, None)])
    assert "No step of this run had a finite loss" in Page(render_report(results, training=folder)).text


@pytest.mark.parametrize(
    ("steps", "config", "message"),
    [
        ([], "{}", r"metrics\.jsonl: holds no step"),
        ([step(1, 1.0), "nonsense"], "{}", r"metrics\.jsonl: line 2 is not a record"),
        ([{"step": 1}], "{}", "line 1 is not a record"),
        ([{"step": "one", "loss": 1.0}], "{}", "step must be a whole number"),
        ([step(1, 1.0)], "{", r"config\.json: not valid JSON"),
    ],
)
def test_damaged_run_folders(tmp_path: Path, steps: list[Any], config: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_training(write_run(tmp_path / "run", steps, config=config))


def test_a_missing_run_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="missing"):
        read_training(tmp_path / "nowhere")
    (tmp_path / "half").mkdir()
    with pytest.raises(DataError, match=r"config\.json: missing"):
        read_training(tmp_path / "half")


@pytest.mark.parametrize(
    ("low", "high"),
    [
        *((0, 1), (3.1, 4.9), (0.0123, 0.0127), (1, 100_000), (2, 2), (-3, 7)),
        *((1e-12, 3e-12), (0, 5e-324), (0, 3e-200), (1, 1 + 2e-16), (2, 2.0000001), (1e20, 1e20), (-1e20, -1e20)),
    ],
)
def test_ticks_enclose_and_are_round(low: float, high: float) -> None:
    ticks = nice_ticks(low, high)
    assert ticks[0] <= low
    assert ticks[-1] >= high
    assert 3 <= len(ticks) <= 9
    steps = {f"{b - a:.6e}" for a, b in itertools.pairwise(ticks)}
    assert len(steps) == 1
    assert steps.pop()[0] in "125"


def test_tiny_losses_have_a_curve(tmp_path: Path) -> None:
    curve = loss_curve(read_training(write_run(tmp_path / "run", [step(1, 1e-12), step(2, 3e-12)])))
    (line,) = curve.lines
    (_, first), (_, second) = (tuple(map(float, pair.split(","))) for pair in line.split())
    assert 0 <= second < first <= 100
    assert {"1e-12", "3e-12"} <= {tick.label for tick in curve.y_ticks}
