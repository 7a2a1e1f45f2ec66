from __future__ import annotations

import dataclasses
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip_core.errors import ConfigError
from clip_train.cli import main
from clip_train.config import TrainConfig, groups
from clip_train.config.files import fields_of, to_toml
from clip_train.flags import parse, read

GIVEN: dict[str, Any] = {
    "model": "ViT-B-32",
    "train_data": "pipe:cat 'my \"data\"'/{0..9}.tar \\ -",
    "image_mean": (0.5, 0.5, 0.25),
    "aug_cfg": {"scale": (0.4, 1.0), "re_prob": 0.25, "use_timm": True},
    "csv_separator": "\t",
    "siglip": True,
    "grad_clip_norm": 1,
}


def write(folder: Path, text: str, name: str = "run.toml") -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


@pytest.mark.parametrize("more", [{}, {"opt": "timm/lamb"}], ids=["adamw", "timm"])
def test_a_configuration_goes_to_toml_and_json_and_back(more: dict[str, Any], tmp_path: Path) -> None:
    config = TrainConfig.of(**GIVEN, **more)
    toml = write(tmp_path, to_toml(config))
    run = write(tmp_path, json.dumps(config.to_json()), "config.json")
    for place in (toml, run, tmp_path):
        assert TrainConfig.of(**fields_of(place)) == config, place


@given(st.text())
def test_any_text_goes_to_toml_and_back(text: str) -> None:
    found = tomllib.loads(to_toml(TrainConfig.of(model="tiny", train_data=f"x{text}")))
    assert found["data"]["train_data"] == f"x{text}"


def test_none_is_the_default_of_every_field_that_may_be_none() -> None:
    # TOML has no null: what is not stated has to be None again. Those of Adam follow the model and the optimiser.
    for group, record in groups().items():
        for field in dataclasses.fields(record):
            if "None" in str(field.type) and field.name not in ("beta1", "beta2", "eps"):
                assert field.default is None, (group, field.name)


def test_groups_and_flat_names_may_be_mixed_and_dashes_are_underscores(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        'model = "tiny"\ntrain-data = "a.tar"\nprecision = "amp_bfloat16"\naug_cfg = { scale = [0.5, 1.0] }\n'
        "[optim]\nlr = 1\nclip-grad-norm = 2.5\n[data]\nworkers = 0\n",
    )
    made = TrainConfig.of(**fields_of(file))
    assert (made.optim.lr, made.optim.grad_clip_norm, made.data.workers) == (1, 2.5, 0)
    assert (made.run.precision, made.data.aug_cfg.scale) == ("amp_bf16", (0.5, 1.0))


def test_the_file_that_the_readme_shows_is_a_configuration(tmp_path: Path) -> None:
    page = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    made = TrainConfig.of(**fields_of(write(tmp_path, block)))
    assert (made.optim.batch_size, made.data.aug_cfg.scale) == (256, (0.5, 1.0))


def test_flags_win_over_files_and_a_later_file_over_an_earlier_one(tmp_path: Path) -> None:
    first = write(tmp_path, '[model]\nmodel = "RN50"\n[optim]\nlr = 1.0\nwd = 1.0\nwarmup = 1\n', "1.toml")
    second = write(tmp_path, 'train_data = "a.tar"\nwd = 2.0\nwarmup = 2\n', "2.toml")
    words = ["--warmup", "3", "--config", first, "--config", second]
    config = parse(words)[0]
    assert (config.optim.lr, config.optim.wd, config.optim.warmup) == (1.0, 2.0, 3)
    assert config.optim.eps == 1e-8, "Adam's defaults follow the model, wherever its name is from"
    assert read(words).origins == {
        "model": first, "lr": first, "wd": second, "train_data": second, "warmup": "flag",
    }  # fmt: skip


def test_toml_says_where_values_are_from() -> None:
    given = read(["--model", "tiny", "--train-data", "a.tar", "--lr", "1"])
    text = to_toml(given.resolve(), given.origins)
    assert "lr = 1.0  # flag" in text
    assert "wd = 0.2\n" in text
    assert "# name: not given" in text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("warmupp = 3", r"no key 'warmupp'\. Did you mean warmup"),
        ("[optim]\nbatchsize = 3", r"\[optim\] has no key 'batchsize'\. Did you mean batch_size"),
        ("[optm]\nlr = 3", r"no key 'optm'\. Did you mean .*optim"),
        ("[data]\nlr = 3", r"\[data\] has 'lr', which belongs to \[optim\]"),
        ("lr = 1\n[optim]\nlr = 3", r"states 'lr' twice"),
        ("lr = ", r"no valid TOML"),
        ("lr = { a = 1 }", r"'lr' as a table"),
        ("[data]\naug_cfg = { scal = [1, 1] }", r"'scal'.*scale"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        fields_of(write(tmp_path, text))


@pytest.mark.parametrize("form", ["--toml", "--json"])
def test_show_prints_a_file_that_repeats_the_run(form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model", "tiny", "--train-data", "a.tar", "--lr", "1"]
    assert main(["show", form, *words]) == 0
    file = write(tmp_path, capsys.readouterr().out, f"run.{form[2:]}")
    assert parse(["--config", file])[0] == parse(words)[0]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("gone.toml", None, "cannot be read"),
        ("run.yaml", "lr: 1", r"\.toml or \.json"),
        ("run.json", "[1]", "no table"),
        ("run.json", "{", "no valid JSON"),
    ],
)
def test_a_file_that_is_none_is_named(name: str, text: str | None, said: str, tmp_path: Path) -> None:
    if text is not None:
        write(tmp_path, text, name)
    with pytest.raises(ConfigError, match=said):
        parse(["--config", str(tmp_path / name)])


def test_the_hash_of_a_configuration_is_that_of_its_values() -> None:
    config = TrainConfig.of(**GIVEN)
    assert config.sha256 == TrainConfig.from_json(json.loads(json.dumps(config.to_json()))).sha256
    assert len(config.sha256) == 64
    assert config.sha256 != config.replace(eps=1e-9).sha256
