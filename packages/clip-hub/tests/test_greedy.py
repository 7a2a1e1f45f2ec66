"""Greedy soups against the recipe by hand, and what a command may do wrong."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest
import torch

from clip_core.errors import ConfigError
from clip_core.weights import read_weights
from clip_hub.greedy import EvaluationFailed, greedy_soup, scored_by
from clip_hub.soup import soup
from fine_tunes import fine_tunes

# The score: how near the mean of one matrix is to a number. It is known what should be kept. In plain Python: torch
# would be imported five times.
SCORE = """
import array, json, pathlib, sys
content = pathlib.Path(sys.argv[1], "model.safetensors").read_bytes()
length = int.from_bytes(content[:8], "little")
begin, end = json.loads(content[8 : 8 + length])["text_projection"]["data_offsets"]
values = array.array("f", content[8 + length + begin : 8 + length + end])
print("some words first")
print(-abs(sum(values) / len(values) - {goal}))
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[Path]:
    return fine_tunes(tmp_path_factory.mktemp("runs"))


def matrix(folder: Path) -> torch.Tensor:
    return read_weights(folder / "model.safetensors")["text_projection"]


def score(folder: Path) -> float:
    """Higher for a lower norm: averages of models with independent noise have less of it."""
    return -float(matrix(folder).norm())


def test_averages_that_score_higher_keep_every_checkpoint_best_first(runs: list[Path], tmp_path: Path) -> None:
    done = greedy_soup(runs, tmp_path / "soup", score)
    ranked = sorted(runs, key=score, reverse=True)
    assert done.kept == tuple(map(str, ranked))
    assert done.scores == {str(run): score(run) for run in runs}
    assert torch.equal(matrix(done.folder), matrix(soup(ranked, tmp_path / "uniform")))
    assert done.score == score(done.folder) > max(done.scores.values())


def test_a_checkpoint_that_lowers_the_score_is_left_out(runs: list[Path], tmp_path: Path) -> None:
    means = sorted(float(matrix(run).mean()) for run in runs)
    goal = means[0] - 1.0  # below all: the average with any other is always further away than the lowest alone
    program = tmp_path / "score.py"
    program.write_text(SCORE.format(goal=goal))
    command = f"{shlex.quote(sys.executable)} {shlex.quote(str(program))} {{}}"
    done = greedy_soup(runs, tmp_path / "soup", command)
    lowest = min(runs, key=lambda run: float(matrix(run).mean()))
    assert done.kept == (str(lowest),)
    assert [kept for _, _, kept in done.steps] == [True, False, False]
    assert torch.equal(matrix(done.folder), matrix(lowest))
    record = json.loads((done.folder / "soup.json").read_text())
    assert record["kind"] == "greedy soup"
    assert record["command"] == f".../{Path(sys.executable).name} .../score.py '{{}}'"
    assert record["scores"] == {f".../{Path(name).name}": score for name, score in done.scores.items()}
    assert [step["kept"] for step in record["steps"]] == [True, False, False]
    assert [entry["name"] for entry in record["checkpoints"]] == [f".../{lowest.name}"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["score.py", "soup"]


def test_equal_scores_keep_all_in_the_order_given(runs: list[Path], tmp_path: Path) -> None:
    seen: list[Path] = []

    def constant(folder: Path) -> float:
        seen.append(folder)
        assert (folder / "clip_config.json").is_file()
        return 0.5

    done = greedy_soup(runs[::-1], tmp_path / "soup", constant)
    assert done.kept == tuple(map(str, runs[::-1]))
    assert len(seen) == 5
    assert not any(folder.exists() for folder in seen)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("print('good')", "printed is 'good'; it has to be a number"),
        ("pass", "printed is ''; it has to be a number"),
        ("print('nan')", "has to be finite"),
        ("raise SystemExit(3)", "ended with exit code 3"),
    ],
)
def test_a_command_that_gives_no_score_stops_everything(runs, tmp_path: Path, code: str, message: str) -> None:
    command = f"{shlex.quote(sys.executable)} -c {shlex.quote(code)} {{}}"
    with pytest.raises(EvaluationFailed, match=message):
        greedy_soup(runs, tmp_path / "soup", command)
    assert list(tmp_path.iterdir()) == []


def test_no_shell_reads_the_command(tmp_path: Path) -> None:
    code = "import sys; print(len(sys.argv[1:])); print(sys.argv[1:].index('$HOME;'))"
    evaluation = scored_by(f"{shlex.quote(sys.executable)} -c {shlex.quote(code)} {{}} '$HOME;' | true")
    assert evaluation(tmp_path / "a folder with spaces") == 1


def test_mistakes_are_found_before_anything_is_evaluated(runs: list[Path], tmp_path: Path) -> None:
    def never(folder: Path) -> float:
        raise AssertionError(folder)

    with pytest.raises(ConfigError, match="has no {}"):
        greedy_soup(runs, tmp_path / "soup", "python score.py")
    with pytest.raises(ConfigError, match="cannot be split into words: No closing quotation"):
        scored_by("python '{}")
    with pytest.raises(EvaluationFailed, match="Cannot start no-such-program-anywhere"):
        scored_by("no-such-program-anywhere {}")(tmp_path)
    with pytest.raises(ConfigError, match="two or more checkpoints, each given once"):
        greedy_soup([runs[0], runs[0]], tmp_path / "soup", never)
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_text("mine")
    with pytest.raises(ConfigError, match="already exists"):
        greedy_soup(runs, tmp_path / "there", never)
    with pytest.raises(ConfigError, match="is not a bundle"):
        greedy_soup([runs[0], f"tiny:{tmp_path}/there"], tmp_path / "soup", never)
