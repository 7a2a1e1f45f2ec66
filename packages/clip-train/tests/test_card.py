"""The command that a model card of clip-hub states repeats the run: clip-train reads it as the same configuration."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from clip_hub.card import find_run
from clip_hub.card.command import training_command
from clip_train.config import TrainConfig
from clip_train.flags import parse
from clip_train.run_folder import RunFolder

RUNS = {
    "defaults": {"model": "tiny", "train_data": "shards/{00..07}.tar"},
    "many": {
        "model": "ViT-B-32",
        "train_data": "pipe:cat 'my data'/{0..9}.tar -",
        "pretrained": "openai",
        "aug_cfg": {
            "scale": (0.4, 1.0),
            "re_prob": 0.25,
            "auto_augment": "rand-m9-mstd0.5-inc1",
            "use_timm": True,
        },
        "image_mean": (0.5, 0.5, 0.5),
        "grad_clip_norm": 1.0,
        "eps": 1e-8,
        "siglip": True,
        "loss_dist_impl": "ring",
        "csv_separator": ",",
        "device": "cpu",
        "debug": True,
    },
}


@pytest.mark.parametrize("name", RUNS)
def test_the_command_of_a_card_is_the_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A card leaves out the folders of the machine; a relative one stays.
    monkeypatch.chdir(tmp_path)
    folder, config = RunFolder.create(TrainConfig.of(**RUNS[name], logs="runs", name=name))
    (folder.path / "bundle").mkdir()
    folder.write_summary({"finished": True})
    run = find_run(folder.path)
    assert run is not None
    program, *flags = shlex.split(training_command(run.settings).replace("\\\n", " "))
    assert program == "clip-train"
    assert parse(flags)[0] == config
