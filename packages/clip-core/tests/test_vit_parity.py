"""clip_core.towers.vit against open_clip 3.3.0's VisionTransformer on the same weights, for every option.

These also cover clip_core.layers.block, clip_core.layers.attention, clip_core.layers.pool and clip_core.towers.locking.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import pytest
import timm.layers
import torch
from open_clip.transformer import QuickGELU, VisionTransformer
from torch import Tensor, nn

import clip_core.layers.drop
import clip_core.towers.vit
from clip_core.building import build
from clip_core.config import AttentionPoolConfig, VitConfig
from clip_core.errors import ConfigError

pytestmark = pytest.mark.parity

PLAIN = VitConfig(image_size=32, patch_size=8, width=32, layers=3, heads=4, mlp_dim=80, activation="gelu")
FEATURES = 16

CASES: dict[str, tuple[dict[str, Any], int]] = {
    "plain": ({}, FEATURES),
    "two_heads": ({"heads": 2}, FEATURES),
    "quick_gelu": ({"activation": "quick_gelu"}, FEATURES),
    "tanh_and_epsilon": ({"activation": "gelu_tanh", "norm_eps": 1e-3}, FEATURES),
    "not_square": ({"image_size": (24, 40)}, FEATURES),
    "average": ({"pool": "average"}, FEATURES),
    "clipa": ({"pool": "average", "pre_norm": False, "norm_after_pool": True}, FEATURES),
    "norm_after_token": ({"norm_after_pool": True}, FEATURES),
    "layer_scale": ({"layer_scale": 0.5}, FEATURES),
    "sin_cos": ({"positions": "sin_cos"}, FEATURES),
    "coca": ({"attention_pool": AttentionPoolConfig(queries=5, heads=2)}, FEATURES),
    "coca_one_width": ({"attention_pool": AttentionPoolConfig(queries=5, heads=2)}, 32),
    "coca_average": ({"attention_pool": AttentionPoolConfig(queries=5, heads=2), "pool": "average"}, FEATURES),
    "parallel": ({"attention_pool": AttentionPoolConfig(queries=5, heads=2, mode="parallel")}, 32),
    "cascade": ({"attention_pool": AttentionPoolConfig(queries=5, heads=2, mode="cascade")}, 32),
}

_ACTIVATIONS = {"gelu": nn.GELU, "quick_gelu": QuickGELU, "gelu_tanh": functools.partial(nn.GELU, approximate="tanh")}


def make_peer(config: VitConfig, embed_dim: int, noise: float = 0.1) -> VisionTransformer:
    """The peer's tower with random weights; the noise leaves none of them at 0 or 1, where a mistake could hide."""
    pool = config.attention_pool
    torch.manual_seed(0)
    peer = VisionTransformer(
        image_size=config.image_size,
        patch_size=config.patch_size,
        width=config.width,
        layers=config.layers,
        heads=config.heads,
        mlp_ratio=config.mlp_dim / config.width,
        ls_init_value=config.layer_scale,
        attentional_pool=False if pool is None else True if pool.mode == "plain" else pool.mode,
        attn_pooler_queries=1 if pool is None else pool.queries,
        attn_pooler_heads=1 if pool is None else pool.heads,
        output_dim=embed_dim,
        patch_dropout=config.patch_dropout,
        no_ln_pre=not config.pre_norm,
        pos_embed_type={"learned": "learnable", "sin_cos": "sin_cos_2d"}[config.positions],
        pool_type={"token": "tok", "average": "avg"}[config.pool],
        final_ln_after_pool=config.norm_after_pool,
        act_layer=_ACTIVATIONS[config.activation],
        norm_layer=functools.partial(nn.LayerNorm, eps=config.norm_eps),
        output_tokens=True,
    )
    with torch.no_grad():
        for parameter in peer.parameters():
            if parameter.requires_grad:
                parameter.add_(noise * torch.randn_like(parameter))
    return peer.eval()


def make_pair(case: str) -> tuple[clip_core.towers.vit.VisionTransformer, VisionTransformer, Tensor]:
    """Our tower and the peer's with the same weights, and images for both."""
    changes, embed_dim = CASES[case]
    config = dataclasses.replace(PLAIN, **changes)
    peer = make_peer(config, embed_dim)
    ours = clip_core.towers.vit.VisionTransformer(config, embed_dim).eval()
    ours.load_state_dict(peer.state_dict(), strict=True)
    return ours, peer, torch.randn(3, 3, *ours.image_size)


def of_peer(peer: VisionTransformer, images: Tensor) -> tuple[Tensor, Tensor]:
    """Its features and tokens; the paper's two pools leave it a dimension of one."""
    features, tokens = peer(images)
    return (features[:, 0] if features.ndim == 3 else features), tokens


@pytest.mark.parametrize("case", CASES)
def test_features_tokens_and_gradients_equal_open_clip(case: str) -> None:
    ours, peer, images = make_pair(case)
    features, tokens = ours.features_and_tokens(images)
    expected, expected_tokens = of_peer(peer, images)
    torch.testing.assert_close(features, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(tokens, expected_tokens, atol=1e-5, rtol=0)
    for pooled, beside in ((features, tokens), (expected, expected_tokens)):
        (pooled.square().sum() + beside.sin().sum()).backward()
    compare_gradients(ours, peer)


@pytest.mark.parametrize("case", CASES)
def test_features_alone_and_their_gradients_equal_open_clip(case: str) -> None:
    ours, peer, images = make_pair(case)
    features, (expected, _) = ours(images), of_peer(peer, images)
    torch.testing.assert_close(features, expected, atol=1e-5, rtol=0)
    for pooled in (features, expected):
        pooled.square().sum().backward()
    compare_gradients(ours, peer)


def compare_gradients(ours: nn.Module, peer: nn.Module) -> None:
    """The same parameters have one, to 1e-4 of each value or 1e-5 of the largest."""
    theirs = dict(peer.named_parameters())
    for name, parameter in ours.named_parameters():
        expected = theirs[name].grad
        assert (parameter.grad is None) == (expected is None), name
        if expected is not None:
            largest = expected.abs().max().item()
            torch.testing.assert_close(parameter.grad, expected, rtol=1e-4, atol=1e-5 * largest + 1e-9, msg=name)


@torch.no_grad()
@pytest.mark.parametrize("case", ["plain", "clipa", "not_square", "coca"])
def test_intermediates_equal_open_clip(case: str) -> None:
    ours, peer, images = make_pair(case)
    output = peer.forward_intermediates(images, output_fmt="NLC", output_extra_tokens=True)
    expected = [
        torch.cat(pair, dim=1)
        for pair in zip(output["image_intermediates_prefix"], output["image_intermediates"], strict=True)
    ]
    for layers, chosen in ((None, expected), ([0], expected[:1]), ([-1, 1], [expected[2], expected[1]]), ([], [])):
        for mine, theirs in zip(ours.intermediates(images, layers), chosen, strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=0)
    with pytest.raises(ConfigError, match="layers has 3; allowed: -3 to 2, for 3 layers"):
        ours.intermediates(images, [3])


# The fixed table is the one thing that differs: the peer would train it where all groups are unlocked.
@pytest.mark.parametrize("case", [case for case in CASES if case != "sin_cos"])
def test_the_same_parameters_are_trainable_for_every_number_of_unlocked_groups(case: str) -> None:
    ours, peer, _ = make_pair(case)
    for count in range(PLAIN.layers + 4):
        ours.lock(count)
        peer.lock(count)
        theirs = {name for name, parameter in peer.named_parameters() if parameter.requires_grad}
        assert {name for name, parameter in ours.named_parameters() if parameter.requires_grad} == theirs
    with pytest.raises(ConfigError, match="unlocked_groups is -1; allowed: 0"):
        ours.lock(-1)


def test_fixed_positions_are_never_trained() -> None:
    ours, _, _ = make_pair("sin_cos")
    ours.lock(99)
    assert {name for name, p in ours.named_parameters() if not p.requires_grad} == {"positional_embedding"}


@pytest.mark.parametrize("case", ["plain", "layer_scale"])
def test_gradients_with_checkpointing_are_the_same(case: str) -> None:
    ours, _, images = make_pair(case)
    gradients = []
    for enable in (False, True):
        ours.set_grad_checkpointing(enable)
        ours.zero_grad()
        ours(images).square().sum().backward()
        gradients.append({name: parameter.grad.clone() for name, parameter in ours.named_parameters()})
    for name, gradient in gradients[0].items():
        assert torch.equal(gradient, gradients[1][name]), name


def test_checkpointing_keeps_less_for_the_backward_pass() -> None:
    ours, _, images = make_pair("plain")
    kept = []
    for enable in (False, True):
        ours.set_grad_checkpointing(enable)
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, s=sizes: (s.append(t.numel()), t)[1], lambda t: t):
            ours(images)
        kept.append(sum(sizes))
    assert kept[1] < kept[0] / 2


def test_what_is_not_decayed_is_what_open_clip_does_not_decay() -> None:
    ours, peer, _ = make_pair("plain")
    assert ours.no_weight_decay() == peer.no_weight_decay()


@pytest.mark.parametrize("case", CASES)
def test_fresh_weights_have_the_distributions_of_open_clip(case: str) -> None:
    changes, embed_dim = CASES[case]
    config = dataclasses.replace(PLAIN, **{**changes, "width": 256, "mlp_dim": 512, "layers": 2})
    embed_dim = 256 if embed_dim == 32 else embed_dim
    ours = clip_core.towers.vit.VisionTransformer(config, embed_dim)
    for parameter in ours.parameters():
        nn.init.constant_(parameter, torch.nan)
    ours.reset_parameters()
    peer = make_peer(config, embed_dim, noise=0)
    mine = ours.state_dict()
    for key, value in peer.state_dict().items():
        spread = value.std().item()
        if spread == 0 or (key == "positional_embedding" and config.positions == "sin_cos"):
            assert torch.equal(mine[key], value), key
        else:
            error = 6 / value.numel() ** 0.5
            assert mine[key].std().item() == pytest.approx(spread, rel=error), key
            assert mine[key].mean().item() == pytest.approx(value.mean().item(), abs=error * spread * 1.5), key


@torch.no_grad()
@pytest.mark.parametrize("rate", [0.5, 0.97])
def test_patch_dropout_in_training_drops_what_open_clip_drops(rate: float) -> None:
    config = dataclasses.replace(PLAIN, patch_dropout=rate)
    peer = make_peer(config, FEATURES)
    ours = clip_core.towers.vit.VisionTransformer(config, FEATURES)
    ours.load_state_dict(peer.state_dict(), strict=True)
    images = torch.randn(3, 3, 32, 32)
    outputs = []
    for model in (ours.train(), peer.train()):
        torch.manual_seed(1)
        outputs.append(model(images) if model is ours else model(images)[0])
    torch.testing.assert_close(outputs[0], outputs[1], atol=1e-5, rtol=0)
    assert ours.intermediates(images)[0].shape[1] == 1 + max(1, int(16 * (1 - rate)))
    torch.testing.assert_close(ours.eval()(images), peer.eval()(images)[0], atol=1e-5, rtol=0)


def test_drop_path_is_that_of_timm_and_rises_from_block_to_block() -> None:
    x = torch.randn(64, 4, 8)
    for rate in (0.1, 0.6):
        torch.manual_seed(2)
        dropped = clip_core.layers.drop.DropPath(rate).train()(x)
        torch.manual_seed(2)
        assert torch.equal(dropped, timm.layers.DropPath(rate).train()(x))
    tower = clip_core.towers.vit.VisionTransformer(dataclasses.replace(PLAIN, drop_path=0.4), FEATURES)
    rates = [getattr(block.drop_path, "rate", 0.0) for block in tower.transformer.resblocks]
    assert rates == pytest.approx([0.0, 0.2, 0.4])


def test_dropped_branches_and_features_come_back_in_evaluation() -> None:
    plain, _, images = make_pair("plain")
    config = dataclasses.replace(PLAIN, drop_path=0.9, head_dropout=0.5)
    dropping = clip_core.towers.vit.VisionTransformer(config, FEATURES)
    dropping.load_state_dict(plain.state_dict(), strict=True)
    assert torch.equal(dropping.eval()(images), plain(images))
    torch.manual_seed(0)
    assert not torch.allclose(dropping.train()(images), plain(images))


def test_head_dropout_is_before_the_projection() -> None:
    plain, _, images = make_pair("plain")
    dropping = clip_core.towers.vit.VisionTransformer(dataclasses.replace(PLAIN, head_dropout=0.5), FEATURES)
    dropping.load_state_dict(plain.state_dict(), strict=True)
    pooled = plain.ln_post(plain.intermediates(images, [-1])[0][:, 0])
    torch.manual_seed(3)
    features = dropping.train()(images)
    torch.manual_seed(3)
    torch.testing.assert_close(features, nn.functional.dropout(pooled, 0.5) @ plain.proj)


@pytest.mark.parametrize("case", CASES)
def test_towers_compile_without_graph_breaks(case: str) -> None:
    ours, _, images = make_pair(case)
    torch._dynamo.reset()
    compiled = torch.compile(ours, backend="eager" if case not in ("plain", "coca") else "aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(images), ours(images), atol=1e-5, rtol=0)


def test_training_with_everything_dropped_and_checkpointed_compiles_without_graph_breaks() -> None:
    config = dataclasses.replace(PLAIN, patch_dropout=0.5, drop_path=0.2, head_dropout=0.1, layer_scale=0.1)
    ours = clip_core.towers.vit.VisionTransformer(config, FEATURES)
    ours.reset_parameters()
    ours.set_grad_checkpointing()
    torch._dynamo.reset()
    torch.compile(ours.train(), backend="aot_eager", fullgraph=True)(torch.randn(2, 3, 32, 32)).sum().backward()
    assert all(parameter.grad is not None for parameter in ours.parameters())


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
def test_low_precision_autocast_and_the_meta_device(case: str) -> None:
    ours, _, images = make_pair(case)
    expected = ours(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = ours(images)
    low = ours.bfloat16()(images.bfloat16())
    assert low.dtype == torch.bfloat16
    for rough in (mixed, low):
        assert torch.nn.functional.cosine_similarity(rough.float(), expected).min() > 0.99
    nowhere = ours.to("meta")
    assert nowhere(images.bfloat16().to("meta")).shape == expected.shape


def test_one_model_in_the_flat_layout_holds_an_image_tower_with_fixed_positions() -> None:
    config = clip_core.get_config("tiny")
    fixed = dataclasses.replace(config, image=dataclasses.replace(config.image, positions="sin_cos"))
    model = build(fixed)
    assert not model.visual.positional_embedding.requires_grad
    assert model.visual.positional_embedding.abs().max() == 1
    assert torch.equal(model.visual.positional_embedding[0], torch.zeros(96))
