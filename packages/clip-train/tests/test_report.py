"""The page of a run and of two: what it says is what the run wrote, and it loads nothing."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from clip_core.errors import ConfigError, DataError
from clip_train import TrainConfig, cli, report
from clip_train.measuring.split import LOOP, READING
from clip_train.report import leave_report, render_report, write_report
from clip_train.report.curves import evaluation_figures, split_figure, step_figures
from clip_train.report.reading import read_run

Make = Callable[..., TrainConfig]


class Page(HTMLParser):
    """Texts by tag, and everything that could be fetched."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[tuple[str, str]] = []
        self.fetched: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag not in ("meta", "line", "circle", "polyline", "polygon", "rect"):
            self.open.append(tag)
        self.fetched += [value for name, value in attrs if name in ("src", "href") and not value.startswith("#")]

    def handle_endtag(self, tag: str) -> None:
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        if data.strip() and self.open:
            self.texts.append((self.open[-1], data.strip()))


def write_run(folder: Path, config: TrainConfig, steps: int, *, wait: float = 0.2, slope: float = 0.1) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config.to_json()), encoding="utf-8")
    lines = []
    for step in range(1, steps + 1):
        seconds = dict.fromkeys((*LOOP, *READING), 0.0) | {"wait": wait, "forward": 0.1, "backward": 0.1, "decode": 0.9}
        seconds.pop("rest")
        lines.append(
            {
                "step": step,
                "samples_seen": step * config.optim.batch_size,
                "loss": None if step == 5 else 8.0 - slope * step,
                "updated": step not in (5, 9),
                "loss_scale": 1024.0,
                "lr": 1e-3,
                "logit_scale": 14.0,
                "grad_norm": None if step == 9 else 1.0,
                "samples_per_second": 40.0,
                "step_seconds": wait + 0.2,
                "skipped_samples": int(step == 7),
                **{f"{part}_seconds": value for part, value in seconds.items()},
            }
        )
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return folder


def test_a_page_says_what_the_run_wrote(make_config: Make, tmp_path: Path) -> None:
    run = write_run(tmp_path / "<first>", make_config(name="mine"), 30)
    evaluations = [
        {"step": step, "epoch": step // 10, "samples_seen": 8 * step, "val/clip_val_loss": 3.0 / step, "d/acc1": 0.5}
        for step in (10, 20)
    ]
    (run / "evaluations.jsonl").write_text("".join(json.dumps(e) + "\n" for e in evaluations), encoding="utf-8")
    summary = {"finished": False, "total_steps": 40, "advice": ["the data is too slow: wait & see"], "seconds": 100.0}
    (run / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    text = render_report([run])
    page = Page(text)
    assert page.fetched == []
    assert "<first>" not in text
    texts = [data for _, data in page.texts]
    assert "<first>" in texts
    for expected in (
        "30 of 40",
        "The data is too slow: wait & see.",
        "The run did not come to its end.",
        "val/clip_val_loss",
        "200.0 ms",
        "50 %",
    ):
        assert expected in texts, expected
    assert texts[texts.index("Skipped steps") + 1] == "1"
    assert texts[texts.index("Overflows of float16") + 1] == "1"
    assert texts[texts.index("Lost samples") + 1] == "1 times"
    assert texts[texts.index("Loss, last") + 1] == "5.0000"
    assert texts[texts.index("train_data") + 1] == make_config().data.train_data


def test_two_runs_stand_beside_each_other(make_config: Make, tmp_path: Path) -> None:
    first = write_run(tmp_path / "a", make_config(name="a", lr=1e-3), 30)
    second = write_run(tmp_path / "b", make_config(name="b", lr=2e-3, batch_size=16), 20, slope=0.2)
    assert write_report([first, second], tmp_path / "out" / "two.html").is_file()
    text = (tmp_path / "out" / "two.html").read_text(encoding="utf-8")
    differs = re.findall(r'<tr class="differs"><th scope="row">(\w+)</th>', text)
    assert set(differs) == {"lr", "batch_size", "name"}
    # Different batches are compared by the samples that they have seen.
    runs = [read_run(first), read_run(second)]
    (loss, *_) = step_figures(runs)
    assert loss.plot.x_label == "samples seen"
    assert {line.style for line in loss.plot.lines} == {"raw first", "run first", "raw second", "run second"}
    assert loss.plot.x(8) == pytest.approx(loss.plot.left)
    assert loss.plot.x(320) == pytest.approx(loss.plot.right)
    with pytest.raises(ConfigError, match="of two, not of 3"):
        render_report([first, second, first])


def test_curves_have_the_steps_in_their_places(make_config: Make, tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "a", make_config(name="a"), 30))
    (loss, *_) = step_figures([run])
    raw = [line for line in loss.plot.lines if line.style == "raw first"]
    # The step without a finite loss parts the line.
    assert [len(line.points.split()) for line in raw] == [4, 25]
    first = [float(value) for value in raw[0].points.split()[0].split(",")]
    assert first == pytest.approx([loss.plot.x(1), loss.plot.y(7.9)], abs=0.01)
    figure = split_figure(run)
    assert figure is not None
    waiting = next(line for line in figure.plot.lines if line.style == "part wait")
    # Half of the time, from the bottom up.
    ys = [float(point.split(",")[1]) for point in waiting.points.split()]
    assert (min(ys), max(ys)) == pytest.approx((figure.plot.y(0.5), figure.plot.y(0.0)), abs=0.01)
    assert evaluation_figures([run]) == []


def test_long_runs_stay_small(make_config: Make, tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", make_config(name="a"), 5000, slope=0.001)
    assert len(render_report([run])) < 400_000
    found = read_run(run)
    assert found.steps == 5000
    assert len(found.splits) <= 240
    assert sum(split.steps for _, split in found.splits) == 4999


def test_a_run_that_was_killed_has_a_report(make_config: Make, tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", make_config(name="a"), 3)
    with (run / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 4, "lo')
    assert read_run(run).steps == 3
    assert "The run goes on, or was killed" in render_report([run])
    assert math.isnan(read_run(run).columns["mfu"][0])


def test_what_is_no_run_is_said(make_config: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", str(tmp_path)]) == 2
    assert "config.json" in capsys.readouterr().err
    run = write_run(tmp_path / "a", make_config(name="a"), 3)
    (run / "metrics.jsonl").write_text('{"loss": 3}\n', encoding="utf-8")
    with pytest.raises(DataError, match="line 1"):
        read_run(run)
    (run / "metrics.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(DataError, match="no step"):
        read_run(run)


def test_the_command_writes_the_page(make_config: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "a", make_config(name="a"), 3)
    assert cli.main(["report", str(run), "-o", str(tmp_path / "r.html")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "r.html")
    assert (tmp_path / "r.html").is_file()


def test_a_report_that_fails_is_no_reason_to_fail(
    make_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = write_run(tmp_path / "a", make_config(name="a"), 3)
    leave_report(run)
    assert (run / "report.html").is_file()

    def fail(folders: Any) -> str:
        raise ZeroDivisionError("in a corner")

    monkeypatch.setattr(report.page, "render_report", fail)
    leave_report(run)
    assert "no report.html" in caplog.text
