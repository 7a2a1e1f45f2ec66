from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import clip_core
import clip_hub
from clip_core.errors import CheckpointMismatch, ConfigError, DataError, UnknownModel
from clip_train import TrainConfig
from clip_train.plan import prepare
from clip_train.world import World

Make = Callable[..., TrainConfig]


def test_steps_cover_every_sample_of_every_epoch(make_config: Make) -> None:
    assert prepare(make_config(epochs=2, batch_size=8)).total_steps == 10
    # 80 samples in batches of 7: eleven full ones leave three samples unseen.
    assert prepare(make_config(epochs=2, batch_size=7)).total_steps == 12
    limited = prepare(make_config(epochs=3, batch_size=8, train_num_samples=16))
    assert (limited.total_steps, limited.per_epoch) == (6, 16)


def test_the_seed_decides_the_initial_weights(make_config: Make) -> None:
    def weight(seed: int) -> torch.Tensor:
        return prepare(make_config(seed=seed)).bundle.model.visual.conv1.weight

    assert torch.equal(weight(1), weight(1))
    assert not torch.equal(weight(1), weight(2))


def test_the_model_carries_the_preprocessing_it_is_trained_with(make_config: Make) -> None:
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    plan = prepare(make_config(image_mean=mean, image_std=std, image_interpolation="bilinear"))
    held = plan.bundle.config.preprocess
    assert (held.mean, held.std, held.interpolation) == (mean, std, "bilinear")
    assert plan.bundle.model.config == plan.bundle.config


def test_pretrained_weights_come_from_a_folder_and_are_left_as_they_are(make_config: Make, tmp_path: Path) -> None:
    torch.manual_seed(9)
    folder = clip_core.save(clip_core.create("tiny"), tmp_path / "start")
    before = (folder / "model.safetensors").read_bytes()
    model = prepare(make_config(pretrained=str(folder))).bundle.model
    assert torch.equal(model.visual.proj, clip_core.load(folder).model.visual.proj)
    with torch.no_grad():
        model.visual.proj.zero_()
    assert (folder / "model.safetensors").read_bytes() == before


def test_a_bundle_with_other_preprocessing_goes_on_with_its_own(make_config: Make, tmp_path: Path) -> None:
    bundle = prepare(make_config(image_mean=(0.1, 0.2, 0.3))).bundle
    folder = clip_core.save(bundle, tmp_path / "start")
    again = prepare(make_config(pretrained=str(folder), image_std=(0.9, 0.9, 0.9))).bundle
    assert again.config.preprocess.mean == (0.1, 0.2, 0.3)
    assert again.config.preprocess.std == (0.9, 0.9, 0.9)
    assert torch.equal(again.model.visual.proj, bundle.model.visual.proj)


def test_siglip_begins_with_the_scale_and_the_bias_of_open_clip(make_config: Make, tmp_path: Path) -> None:
    plain, bundle = prepare(make_config()).bundle, prepare(make_config(siglip=True)).bundle
    assert plain.model.logit_bias is None
    for module, config in ((bundle.model, bundle.config), (bundle.model, bundle.model.config)):
        assert (config.logit_scale, config.logit_bias) == (math.log(10), -10.0)
        assert module.logit_scale.item() == pytest.approx(math.log(10))
        assert module.logit_bias.item() == -10
    assert torch.equal(bundle.model.visual.proj, plain.model.visual.proj)
    with torch.no_grad():
        bundle.model.logit_bias.fill_(-9)
        bundle.model.logit_scale.fill_(3)
    folder = clip_core.save(bundle, tmp_path / "start")
    for siglip in (True, False):
        again = prepare(make_config(pretrained=str(folder), siglip=siglip)).bundle.model
        assert (again.logit_scale.item(), again.logit_bias.item()) == (3, -9)


def test_weights_without_a_bias_get_one_for_siglip_and_that_is_said(
    make_config: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = clip_core.save(clip_core.create("tiny"), tmp_path / "start")
    with caplog.at_level(logging.WARNING, "clip_train"):
        bundle = prepare(make_config(pretrained=str(folder), siglip=True)).bundle
    assert "no bias for the sigmoid loss: it begins at 0" in caplog.text
    assert (bundle.model.logit_bias.item(), bundle.config.logit_bias) == (0, 0)
    assert bundle.model.logit_scale.item() == pytest.approx(math.log(1 / 0.07))
    reread = clip_core.load(clip_core.save(bundle, tmp_path / "saved")).model
    assert reread.logit_bias.item() == 0


def test_what_the_flags_of_open_clips_loss_do_here_is_said(make_config: Make, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "clip_train"):
        prepare(make_config(local_loss=True, gather_with_grad=True))
    assert "--local-loss and --gather-with-grad: not needed" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO, "clip_train"):
        prepare(make_config())
    assert "not needed" not in caplog.text


def test_a_bias_that_is_not_trained_is_said(
    make_config: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = clip_core.save(prepare(make_config(siglip=True)).bundle, tmp_path / "start")
    with caplog.at_level(logging.WARNING, "clip_train"):
        prepare(make_config(pretrained=str(folder)))
    assert "a bias, which CLIP's loss does not train" in caplog.text


def test_a_bundle_of_another_model_is_refused(make_config: Make, tmp_path: Path) -> None:
    folder = clip_core.save(clip_core.create("tiny-quickgelu"), tmp_path / "start")
    with pytest.raises(CheckpointMismatch, match="quick_gelu"):
        prepare(make_config(pretrained=str(folder)))


def test_a_tag_is_a_tag_also_where_a_folder_has_its_name(
    make_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str]] = []

    def offline(name: str, pretrained: str, cache_dir: str | None) -> clip_core.Clip:
        asked.append((name, pretrained))
        return clip_core.create_model(name)

    clip_core.save(clip_core.create("tiny"), tmp_path / "openai")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(clip_hub, "create_model", offline)
    prepare(make_config(pretrained="openai"))
    assert asked == [("tiny", "openai")]


@pytest.mark.parametrize("device", ["meta", "foo"])
def test_a_device_that_cannot_train_is_an_error(make_config: Make, device: str) -> None:
    with pytest.raises(ConfigError, match=f"device is '{device}'; allowed: auto, cpu"):
        prepare(make_config(device=device))


def test_more_workers_than_cores_is_said(make_config: Make, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "clip_train"):
        prepare(make_config(workers=999))
    assert "999 workers on" in caplog.text


def test_pretrained_that_does_not_exist_is_an_error(make_config: Make) -> None:
    with pytest.raises((ConfigError, UnknownModel), match="no_such_tag"):
        prepare(make_config(pretrained="no_such_tag"))


def test_an_unknown_model_lists_the_nearest_names(make_config: Make) -> None:
    with pytest.raises(UnknownModel, match=r"'ViT-B-23'.*ViT-B-32"):
        prepare(make_config(model="ViT-B-23"))


def test_missing_data_is_an_error(make_config: Make, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.tar: no such file"):
        prepare(make_config(train_data=f"{tmp_path}/gone.tar"))


def test_each_process_has_its_share_of_every_batch(make_config: Make) -> None:
    config = make_config(batch_size=2, accum_freq=5)
    plans = [prepare(config, World(rank=rank, size=3)) for rank in range(3)]
    assert {(plan.global_batch, plan.total_steps) for plan in plans} == {(30, 2)}
    slots = [slot for number in range(10) for plan in plans for slot in plan.share.slots(number)]
    assert slots == list(range(60))


def test_a_warm_up_longer_than_the_run_is_said(make_config: Make, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "clip_train"):
        prepare(make_config(warmup=5))
    assert "warm-up of 5 steps is longer than the run of 5" in caplog.text
