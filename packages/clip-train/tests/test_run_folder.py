from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from clip_core.errors import ConfigError
from clip_train import TrainConfig, run_folder
from clip_train.run_folder import RunFolder, early_log, log_level

Make = Callable[..., TrainConfig]


def test_the_configuration_is_written_as_it_was_resolved(make_config: Make) -> None:
    folder, config = RunFolder.create(make_config(name="one"))
    assert folder.path.name == config.run.name == "one"
    assert TrainConfig.from_json(json.loads(folder.config.read_text(encoding="utf-8"))) == config


@pytest.mark.parametrize("held", ["config.json", "metrics.jsonl", "out.log"])
def test_a_folder_that_holds_a_run_is_left_alone(make_config: Make, tmp_path: Path, held: str) -> None:
    path = tmp_path / "logs" / "mine"
    path.mkdir(parents=True)
    (path / held).write_text("kept", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"mine already holds a run.*--name"):
        RunFolder.create(make_config(name="mine"))
    assert {p.name: p.read_text(encoding="utf-8") for p in path.iterdir()} == {held: "kept"}


def test_a_file_in_the_place_of_the_folder_is_called_what_it_is(make_config: Make, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "mine").write_text("kept", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"mine is there already and is no folder.*--name"):
        RunFolder.create(make_config(name="mine"))
    assert (tmp_path / "logs" / "mine").read_text(encoding="utf-8") == "kept"


def test_a_folder_with_other_things_may_be_used(make_config: Make, tmp_path: Path) -> None:
    path = tmp_path / "logs" / "mine"
    path.mkdir(parents=True)
    (path / "notes.txt").write_text("", encoding="utf-8")
    assert RunFolder.create(make_config(name="mine"))[0].config.exists()


def test_default_names_never_meet(make_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_folder.time, "strftime", lambda _: "2026_01_01-00_00_00")
    made = [RunFolder.create(make_config(lr=3e-4))[1].run.name for _ in range(3)]
    first = "2026_01_01-00_00_00-model_tiny-lr_0.0003-b_8-j_0-p_fp32"
    assert made == [first, f"{first}-2", f"{first}-3"]


def test_a_folder_that_cannot_be_made_is_an_error(make_config: Make, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(ConfigError, match="cannot be written"):
        RunFolder.create(make_config(logs=str(tmp_path / "file"), name="x"))


def test_what_was_said_before_there_was_a_folder_comes_first_in_its_log(make_config: Make) -> None:
    logger = logging.getLogger("clip_train.some.room")
    with log_level(logging.INFO), early_log():
        logger.info("early")
        folder, _ = RunFolder.create(make_config())
        with folder.logging(debug=False):
            logger.info("later")
        logger.info("too late")
    words = [line.split()[-1] for line in folder.log.read_text(encoding="utf-8").splitlines()]
    assert words == ["early", "later"]
    assert not logging.getLogger("clip_train").handlers


def test_a_run_that_goes_on_finds_its_folder_as_it_was(make_config: Make) -> None:
    folder, config = RunFolder.create(make_config(name="one"))
    folder.write_summary({"finished": True})
    RunFolder.check(config, again=True)
    again, same = RunFolder.create(config, again=True)
    assert (again.path, same) == (folder.path, config)
    assert folder.summary.exists()
    folder.rewrite_config(config.replace(lr=2e-3))
    assert TrainConfig.from_json(json.loads(folder.config.read_text(encoding="utf-8"))).optim.lr == 2e-3
    assert not folder.summary.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="no such locks")
def test_two_programs_never_train_in_one_folder(make_config: Make) -> None:
    folder, _ = RunFolder.create(make_config(name="one"))
    code = "import fcntl, sys; f = open(sys.argv[1], 'a'); fcntl.lockf(f, 2); print('held', flush=True); input()"
    command = [sys.executable, "-c", code, str(folder.log)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline().strip() == b"held"
        with pytest.raises(ConfigError, match="Another program is training in"), folder.hold():
            pass
        other.kill()
    with folder.hold():
        pass


def test_the_log_takes_the_four_packages_and_leaves_no_trace(make_config: Make) -> None:
    folder, _ = RunFolder.create(make_config())
    logger = logging.getLogger("clip_core.some.room")
    before = logging.getLogger("clip_core").level
    with folder.logging(debug=False):
        logger.info("heard")
        logger.debug("not heard")
    logger.error("too late")
    text = folder.log.read_text(encoding="utf-8")
    assert "INFO heard" in text
    assert "not heard" not in text
    assert "too late" not in text
    assert logging.getLogger("clip_core").level == before
