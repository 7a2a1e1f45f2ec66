"""clip_core.towers.resnet against open_clip 3.3.0's ModifiedResNet, small, with random weights and statistics."""

from __future__ import annotations

import logging

import open_clip.modified_resnet
import pytest
import torch
from torch import nn

import clip_core
from clip_core.building import build, lay_out
from clip_core.config import ResNetConfig
from clip_core.errors import CheckpointMismatch, ConfigError
from clip_core.presets.parts import model, text_tower
from clip_core.towers.resnet import ModifiedResNet
from clip_core.weights import load_weights

pytestmark = pytest.mark.parity

LAYERS, WIDTH, HEADS, FEATURES = (1, 2, 1, 2), 16, 8, 24


def config(size: int | tuple[int, int] = 64) -> clip_core.ClipConfig:
    image = ResNetConfig(image_size=size, layers=LAYERS, width=WIDTH, heads=HEADS)
    return model(FEATURES, image, text_tower(8, 1, 1, vocab_size=9))


def randomized(tower: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in tower.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2, generator=generator)
            elif tensor.ndim == 1 and tensor.is_floating_point():
                tensor.normal_(0.1, 0.4, generator=generator)
    return tower


def peer_and_ours(size: int = 64) -> tuple[nn.Module, ModifiedResNet]:
    torch.manual_seed(0)
    peer = randomized(open_clip.modified_resnet.ModifiedResNet(list(LAYERS), FEATURES, HEADS, size, WIDTH)).eval()
    ours = build(config(size)).visual
    assert isinstance(ours, ModifiedResNet)
    ours.load_state_dict(peer.state_dict(), strict=True)
    return peer, ours


def test_keys_shapes_dtypes_and_features_are_the_peers() -> None:
    peer, ours = peer_and_ours()
    describe = {key: (value.shape, value.dtype) for key, value in peer.state_dict().items()}
    assert {key: (value.shape, value.dtype) for key, value in ours.state_dict().items()} == describe
    images = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), peer(images), atol=2e-6, rtol=2e-6)
        expected = peer.forward_intermediates(images)
        for mine, theirs in zip(ours.intermediates(images), expected["image_intermediates"], strict=True):
            torch.testing.assert_close(mine, theirs, atol=2e-6, rtol=2e-6)
        last, first = ours.intermediates(images, [-1, 0])
        assert (last.shape, first.shape) == ((3, 512, 2, 2), (3, 16, 16, 16))
        features, tokens = ours.features_and_tokens(images)
        torch.testing.assert_close(features, peer(images), atol=2e-6, rtol=2e-6)
        assert tokens.shape == (3, 5, 512)
        plain = tokens - ours.attnpool.positional_embedding
        torch.testing.assert_close(plain[:, 1:], expected["image_intermediates"][-1].flatten(2).transpose(1, 2))
    with pytest.raises(ConfigError, match="5"):
        ours.intermediates(images, [5])


@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
def test_gradients_and_running_statistics_of_training_are_the_peers(recompute: bool) -> None:
    peer, ours = peer_and_ours()
    ours.set_grad_checkpointing(recompute)
    images = torch.randn(6, 3, 64, 64)
    for tower in (peer, ours):
        tower.train()
        tower(images).square().sum().backward()
    theirs = dict(peer.named_parameters())
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, theirs[name].grad, atol=1e-4, rtol=1e-4, msg=name)
    statistics = dict(peer.named_buffers())
    for name, buffer in ours.named_buffers():
        torch.testing.assert_close(buffer, statistics[name], msg=name)


@pytest.mark.parametrize("freeze", [False, True])
def test_a_locked_tower_trains_the_same_parameters_and_statistics_as_the_peers(freeze: bool) -> None:
    peer, ours = peer_and_ours()
    keys = list(ours.state_dict())
    before = {key: value.clone() for key, value in ours.named_buffers()}
    for tower in (peer, ours):
        tower.lock(freeze_bn_stats=freeze)
        tower.train()
    assert not [name for name, parameter in ours.named_parameters() if parameter.requires_grad]
    assert not [name for name, parameter in peer.named_parameters() if parameter.requires_grad]
    images = torch.randn(4, 3, 64, 64)
    torch.testing.assert_close(ours(images), peer(images), atol=1e-5, rtol=1e-5)
    assert list(ours.state_dict()) == keys
    theirs = dict(peer.named_buffers())
    for name, buffer in ours.named_buffers():
        if name in theirs:  # frozen norms of the peer's do not count batches
            torch.testing.assert_close(buffer, theirs[name], msg=name)
        assert torch.equal(buffer, before[name]) == freeze


def test_the_last_groups_can_stay_unlocked() -> None:
    _, ours = peer_and_ours()
    ours.lock(unlocked_groups=2, freeze_bn_stats=True)
    trained = {name.split(".")[0] for name, parameter in ours.named_parameters() if parameter.requires_grad}
    assert trained == {"layer4", "attnpool"}
    ours.train()
    before = {name: buffer.clone() for name, buffer in ours.named_buffers()}
    ours(torch.randn(2, 3, 64, 64))
    moved = {name.split(".")[0] for name, buffer in ours.named_buffers() if not torch.equal(buffer, before[name])}
    assert moved == {"layer4"}
    ours.lock(unlocked_groups=3)
    trained = {name.split(".")[0] for name, parameter in ours.named_parameters() if parameter.requires_grad}
    assert trained == {"layer3", "layer4", "attnpool"}
    with pytest.raises(ConfigError, match="unlocked_groups is -1; allowed: 0"):
        ours.lock(-1)


def test_weights_of_another_resolution_are_interpolated_and_strange_ones_refused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    _, small = peer_and_ours(64)
    for size, grid in ((96, (3, 3)), ((64, 128), (2, 4))):
        target = lay_out(config(size))
        held = {f"visual.{key}": value for key, value in small.state_dict().items()}
        rest = {key: value for key, value in build(config()).state_dict().items() if not key.startswith("visual.")}
        with caplog.at_level(logging.INFO, "clip_core"):
            load_weights(target, target.adapt_weights({**rest, **held}), "here")
        assert f"from 2x2 to {grid[0]}x{grid[1]}" in caplog.text
        table = small.attnpool.positional_embedding
        expected = nn.functional.interpolate(
            table[1:].T.reshape(1, -1, 2, 2), size=grid, mode="bicubic", antialias=True, align_corners=False
        )
        fitted = target.visual.attnpool.positional_embedding
        torch.testing.assert_close(fitted[1:], expected.flatten(2)[0].T)
        assert torch.equal(fitted[0], table[0])
        height, width = clip_core.config.size_pair(size)
        assert target.encode_image(torch.randn(1, 3, height, width)).shape == (1, FEATURES)
    held["visual.attnpool.positional_embedding"] = torch.zeros(4, 512)  # three places are no square
    with pytest.raises(CheckpointMismatch, match=r"attnpool.positional_embedding is \(4, 512\)"):
        load_weights(target, target.adapt_weights({**rest, **held}), "here")


def test_a_table_that_fits_two_grids_is_pointed_out(caplog: pytest.LogCaptureFixture) -> None:
    square = build(config(128)).visual
    wide = lay_out(config((64, 256))).visual
    with caplog.at_level(logging.WARNING, "clip_core"):
        square.adapt_weights(square.state_dict())
        assert not caplog.records
        wide.adapt_weights(square.state_dict())
    assert "grid of 2x8; should they be of 4x4" in caplog.text


def test_no_images_give_no_features() -> None:
    assert build(config()).encode_image(torch.zeros(0, 3, 64, 64)).shape == (0, FEATURES)


def test_new_weights_are_drawn_as_the_peer_draws_them() -> None:
    torch.manual_seed(0)
    ours = build(config()).visual
    torch.manual_seed(0)
    peer = open_clip.modified_resnet.ModifiedResNet(list(LAYERS), FEATURES, HEADS, 64, WIDTH)
    for (name, mine), theirs in zip(ours.named_parameters(), peer.parameters(), strict=True):
        if mine.numel() > 1000:
            assert mine.std().item() == pytest.approx(theirs.std().item(), rel=0.1), name
        assert mine.requires_grad
    assert not ours.layer2[1].bn3.weight.any()
    assert torch.isfinite(ours(torch.randn(2, 3, 64, 64))).all()


def test_a_saved_bundle_keeps_running_statistics_and_their_counters(tmp_path) -> None:
    ours = build(config())
    randomized(ours.visual)
    ours.train()
    ours.encode_image(torch.randn(2, 3, 64, 64))
    ours.eval()
    clip_core.save(clip_core.Bundle.of(ours), tmp_path / "bundle")
    back = clip_core.load(tmp_path / "bundle").model
    assert ours.visual.bn1.num_batches_tracked == 1
    for key, value in ours.state_dict().items():
        assert torch.equal(back.state_dict()[key], value), key
        assert back.state_dict()[key].dtype == value.dtype
