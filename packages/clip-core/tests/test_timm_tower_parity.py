"""clip_core.towers.timm_tower and batch_norm against open_clip 3.3.0's adapter, on small models of every family."""

from __future__ import annotations

import dataclasses
import functools
import logging
from typing import Any

import open_clip.timm_model
import pytest
import timm
import torch
from torch import Tensor, nn

from clip_core.building import build, lay_out
from clip_core.config import ClipConfig, TimmConfig
from clip_core.errors import CheckpointMismatch, ConfigError
from clip_core.presets.parts import model, text_tower
from clip_core.towers.timm_tower import TimmTower
from clip_core.weights import load_weights

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore:Importing from timm.models.helpers:FutureWarning"),  # open_clip does
    # timm's interpolation of relative position biases:
    pytest.mark.filterwarnings("ignore:torch.searchsorted:UserWarning"),
    pytest.mark.filterwarnings("ignore:Using a non-tuple sequence:UserWarning"),
]

FEATURES = 24
VIT = (("embed_dim", 64), ("depth", 2), ("num_heads", 4))
ROTARY = (("embed_dim", 64), ("depth", 2), ("num_heads", 2))  # a quarter of a head's width is one frequency table
MAPS = (("depths", (1, 1, 2, 1)), ("dims", (16, 32, 48, 64)))
FASTVIT = (("layers", (1, 1, 1, 1)), ("embed_dims", (16, 32, 64, 128)))
SWIN = (("embed_dim", 16), ("depths", (1, 2, 1, 1)), ("num_heads", (1, 2, 4, 8)))


def tower(name: str, size: int, pool: Any, projection: Any, options: Any = (), **more: Any) -> TimmConfig:
    return TimmConfig(name=name, image_size=size, pool=pool, projection=projection, options=options, **more)


# The trunks of the presets, made small by timm's own arguments, with the poolings and projections they come with.
FAMILIES = {
    "convnext": tower("convnext_tiny", 64, "", "linear", MAPS, drop_path=0.1),
    "convnext_d": tower("convnext_large", 64, "", "mlp", MAPS),
    "convnext_xxlarge": tower("convnext_xxlarge", 64, "", "linear", MAPS),
    "eva01": tower("eva_giant_patch14_224", 224, "token", "trunk", VIT),
    "eva02": tower("eva02_base_patch16_clip_224", 224, "token", "trunk", ROTARY),
    "eva02_E": tower("eva02_enormous_patch14_clip_224", 224, "token", "trunk", VIT),
    "vitamin": tower("vitamin_small_224", 224, "", "linear", (("depth", 2),), drop_path=0.1),
    "mobileclip": tower("fastvit_mci1", 64, "avg", "trunk", FASTVIT, drop_path=0.0),
    "mobileclip2": tower(
        "fastvit_mci3", 64, "avg", "trunk", (("layers", (1,) * 5), ("embed_dims", (16, 32, 64, 128, 256)))
    ),
    "mobileclip_b": tower("vit_base_mci_224", 224, "token", "trunk", (("depth", 2),)),
    "mobileclip2_l": tower("vit_large_patch14_clip_224", 224, "token", "trunk", VIT, drop_path=0.1),
    "pe": tower("vit_pe_core_base_patch16_224", 224, "map", "trunk", ROTARY),
    "pe_bigG": tower("vit_pe_core_gigantic_patch14_448", 448, "map", "trunk", ROTARY),
    "siglip": tower("vit_base_patch16_siglip_224", 224, "map", "none", (("embed_dim", FEATURES), *VIT[1:])),
    "gap": tower("vit_medium_patch16_gap_256", 256, "", "linear", VIT),
    "relpos": tower("vit_relpos_medium_patch16_cls_224", 224, "", "linear", VIT),
    "swin": tower("swin_base_patch4_window7_224", 224, "", "linear", SWIN),
}
NO_SIZE = ("convnext", "convnext_d", "convnext_xxlarge", "mobileclip", "mobileclip2")


def envelope(image: TimmConfig) -> ClipConfig:
    return model(FEATURES, image, text_tower(8, 1, 1, vocab_size=9))


def randomized(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2, generator=generator)
            elif tensor.is_floating_point():
                tensor.add_(torch.randn(tensor.shape, generator=generator), alpha=0.1)
    return module


def make_peer(image: TimmConfig, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    if image.options:
        create = functools.partial(timm.create_model, **dict(image.options))
        monkeypatch.setattr(open_clip.timm_model.timm, "create_model", create)
    peer = open_clip.timm_model.TimmModel(
        image.name,
        FEATURES,
        image_size=image.image_size,
        pool=image.pool,
        proj={"trunk": None}.get(image.projection, image.projection),
        drop=image.head_dropout,
        drop_path=image.drop_path,
        patch_drop=image.patch_dropout,
    )
    monkeypatch.undo()
    return randomized(peer).eval()


def load(target: Any, visual: dict[str, Tensor]) -> TimmTower:
    """`target`, laid out on the meta device, with these weights in its image tower."""
    text = {
        key: torch.zeros(value.shape) for key, value in target.state_dict().items() if not key.startswith("visual.")
    }
    load_weights(target, target.adapt_weights({**text, **{f"visual.{k}": v for k, v in visual.items()}}), "the peer")
    tower = target.eval().visual
    assert isinstance(tower, TimmTower)
    return tower


def pair(image: TimmConfig, monkeypatch: pytest.MonkeyPatch) -> tuple[nn.Module, TimmTower]:
    torch.manual_seed(0)
    peer = make_peer(image, monkeypatch)
    return peer, load(lay_out(envelope(image)), {k: v.clone() for k, v in peer.state_dict().items()})


@pytest.mark.parametrize("family", FAMILIES)
def test_keys_features_and_gradients_are_the_peers(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    image = FAMILIES[family]
    peer, ours = pair(image, monkeypatch)
    describe = {key: (value.shape, value.dtype) for key, value in peer.state_dict().items()}
    assert {key: (value.shape, value.dtype) for key, value in ours.state_dict().items()} == describe
    assert not any(buffer.is_meta for buffer in ours.buffers())
    images = torch.randn(2, 3, image.image_size, image.image_size)
    features, expected = ours(images), peer(images)
    assert features.shape == (2, FEATURES)
    torch.testing.assert_close(features, expected, atol=1e-6, rtol=1e-6)
    expected.square().sum().backward()
    features.square().sum().backward()
    theirs = dict(peer.named_parameters())
    for name, parameter in ours.named_parameters():
        assert (parameter.grad is None) == (theirs[name].grad is None), name
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, theirs[name].grad, atol=1e-5, rtol=1e-5, msg=name)

    with torch.no_grad():
        again, tokens = ours.features_and_tokens(images)
        torch.testing.assert_close(again, features)
        assert tokens.ndim == 3
        every = ours.intermediates(images)
        read = peer.trunk.forward_intermediates(images, intermediates_only=True)  # maps, without class tokens
        assert len(every) == len(read)
        for mine, theirs_map in zip(every, read, strict=True):
            rows = theirs_map.flatten(2).transpose(1, 2)
            mine = mine.flatten(2).transpose(1, 2) if mine.ndim == 4 else mine[:, -rows.shape[1] :]
            torch.testing.assert_close(mine, rows)
        last, first = ours.intermediates(images, [-1, 0])
        assert torch.equal(last, every[-1])
        assert torch.equal(first, every[0])


@pytest.mark.parametrize("family", ["convnext", "eva02", "mobileclip", "pe", "swin"])
@pytest.mark.parametrize(("unlocked", "freeze"), [(0, False), (0, True), (1, True), (2, False)])
def test_locking_leaves_the_same_parameters_to_train_as_the_peers(
    family: str, unlocked: int, freeze: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = FAMILIES[family]
    peer, ours = pair(image, monkeypatch)
    keys = list(ours.state_dict())
    for each in (peer, ours):
        each.lock(unlocked, freeze_bn_stats=freeze)
        each.train()
    trained = {name for name, parameter in ours.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, parameter in peer.named_parameters() if parameter.requires_grad}
    assert list(ours.state_dict()) == keys
    for each in (peer, ours):
        for module in each.modules():
            if "Drop" in type(module).__name__:
                module.eval()  # both would draw, in another order
    images = torch.randn(2, 3, image.image_size, image.image_size)
    torch.testing.assert_close(ours(images), peer(images), atol=1e-5, rtol=1e-5)
    theirs = dict(peer.named_buffers())
    for name, buffer in ours.named_buffers():
        if name in theirs:  # frozen norms of the peer's do not count batches
            torch.testing.assert_close(buffer, theirs[name], msg=name)


def test_a_negative_number_of_unlocked_groups_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    _, ours = pair(FAMILIES["eva02"], monkeypatch)
    with pytest.raises(ConfigError, match="unlocked_groups is -1; allowed: 0"):
        ours.lock(-1)


def test_frozen_statistics_stay_and_can_follow_again(monkeypatch: pytest.MonkeyPatch) -> None:
    _, ours = pair(FAMILIES["mobileclip"], monkeypatch)
    ours.lock(freeze_bn_stats=True)
    images = torch.randn(2, 3, 64, 64)

    def moved() -> bool:
        before = {name: buffer.clone() for name, buffer in ours.named_buffers()}
        nn.Sequential(ours).train()  # as a whole model is set to training
        ours(images)
        return any(not torch.equal(buffer, before[name]) for name, buffer in ours.named_buffers())

    assert not moved()
    assert ours.training
    ours.thaw_batch_norms()
    assert moved()


LARGER = [(name, 1.5) for name in FAMILIES if name not in ("relpos", "vitamin", "mobileclip_b")]
SMALLER = [(name, 0.5) for name in ("convnext", "eva01", "eva02", "vitamin", "mobileclip_b", "pe", "siglip", "swin")]


@pytest.mark.parametrize(("family", "factor"), [*LARGER, *SMALLER])
def test_weights_of_one_resolution_serve_another_as_at_the_peer(
    family: str, factor: float, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    image = FAMILIES[family]
    patch = 14 if "14" in image.name else 32
    size = round(image.image_size * factor / patch) * patch
    torch.manual_seed(0)
    peer = make_peer(image, monkeypatch)
    weights = {key: value.clone() for key, value in peer.state_dict().items()}
    peer.set_input_size(size)
    with caplog.at_level(logging.INFO, "clip_core"):
        ours = load(lay_out(envelope(dataclasses.replace(image, image_size=size))), weights)
    assert ("Interpolating" in caplog.text) == (family not in NO_SIZE)
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), peer(images), atol=2e-6, rtol=2e-6)


def test_what_timm_cannot_build_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="no model 'convnext_tinny'. Did you mean convnext_tiny"):
        lay_out(envelope(tower("convnext_tinny", 64, "", "linear")))
    with pytest.raises(ConfigError, match="convnext_tiny does not take .*patch_drop_rate"):
        lay_out(envelope(tower("convnext_tiny", 64, "", "linear", patch_dropout=0.5)))
    with pytest.raises(ConfigError, match="features of width 64; allowed: embed_dim 64"):
        lay_out(envelope(tower("convnext_tiny", 64, "", "none", MAPS)))
    with pytest.raises(ConfigError, match="levit_128s is made for 224 x 224 pixels and cannot change its size"):
        lay_out(envelope(tower("levit_128s", 256, "", "linear")))
    _, ours = pair(FAMILIES["eva02"], monkeypatch)
    weights = ours.state_dict()
    weights["trunk.pos_embed"] = torch.zeros(1, 197, 65)
    with pytest.raises((CheckpointMismatch, RuntimeError), match="pos_embed"):
        load(lay_out(envelope(FAMILIES["eva02"])), weights)


@pytest.mark.parametrize("family", ["convnext", "siglip", "mobileclip", "swin"])
def test_recomputing_in_the_backward_pass_changes_no_gradient(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    image = FAMILIES[family]
    _, ours = pair(image, monkeypatch)
    images = torch.randn(2, 3, image.image_size, image.image_size)
    gradients = []
    for enable in (False, True):
        ours.set_grad_checkpointing(enable)
        ours.zero_grad()
        ours(images).square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in ours.parameters() if parameter.grad is not None])
    for kept, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(kept, recomputed)


def test_new_weights_are_those_that_timm_draws() -> None:
    image = FAMILIES["siglip"]
    ours = build(envelope(image)).visual
    torch.manual_seed(0)
    ours.reset_parameters()
    torch.manual_seed(0)
    plain = timm.create_model(image.name, num_classes=0, global_pool="map", **dict(image.options))
    for name, value in plain.state_dict().items():
        assert torch.equal(ours.trunk.state_dict()[name], value), name
    assert ours.no_weight_decay() == {f"trunk.{name}" for name in plain.no_weight_decay()}


def test_head_dropout_and_patch_dropout_act_in_training_only(monkeypatch: pytest.MonkeyPatch) -> None:
    image = tower("vit_base_patch16_siglip_224", 224, "map", "linear", VIT, head_dropout=0.5, patch_dropout=0.5)
    peer, ours = pair(image, monkeypatch)
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        plain = ours(images)
        torch.testing.assert_close(plain, peer(images))
        assert not torch.equal(ours.train()(images), plain)
        for each in (peer.train(), ours):
            torch.manual_seed(3)
            last = each(images)
            if each is peer:
                expected = last
        torch.testing.assert_close(last, expected)


def test_no_images_give_no_features() -> None:
    for family in ("eva02", "swin"):
        tower = build(envelope(FAMILIES[family]))
        assert tower.encode_image(torch.zeros(0, 3, 224, 224)).shape == (0, FEATURES)


def test_a_table_that_fits_two_grids_is_pointed_out(caplog: pytest.LogCaptureFixture) -> None:
    image = FAMILIES["siglip"]
    square = build(envelope(dataclasses.replace(image, image_size=128))).visual
    wide = lay_out(envelope(dataclasses.replace(image, image_size=(64, 256)))).visual
    with caplog.at_level(logging.WARNING, "clip_core"):
        square.adapt_weights(square.state_dict())
        assert not caplog.records
        wide.adapt_weights(square.state_dict())
    assert "grid of 4x16; should they be of 8x8" in caplog.text


@pytest.mark.parametrize("family", ["eva02", "mobileclip", "swin"])
def test_half_precision_keeps_the_direction_of_the_features(family: str) -> None:
    image = FAMILIES[family]
    images = torch.randn(2, 3, image.image_size, image.image_size)
    features = []
    for precision in ("fp32", "bf16"):
        torch.manual_seed(0)
        model = build(envelope(image), precision=precision)
        with torch.no_grad():
            features.append(model.encode_image(images, normalize=True).float())
        assert model.dtype == {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    assert nn.functional.cosine_similarity(*features).min() > 0.99


def test_features_and_intermediates_come_from_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    for family in ("mobileclip", "pe_bigG"):
        _, ours = pair(FAMILIES[family], monkeypatch)
        images = torch.randn(2, 3, *ours.image_size)
        passes: list[int] = []
        first = next(module for module in ours.modules() if isinstance(module, nn.Conv2d))
        with torch.no_grad():
            expected, blocks = ours(images), ours.intermediates(images, [0])
            first.register_forward_hook(lambda *_, passes=passes: passes.append(1))
            features, outputs = ours.features_and_intermediates(images, [0])
        torch.testing.assert_close(features, expected)
        assert torch.equal(outputs[0], blocks[0])
        assert len(passes) == 1
