"""clip_core.towers.text against open_clip 3.3.0's TextTransformer on the same weights, for every option."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import open_clip
import pytest
import torch
from open_clip.transformer import TextTransformer
from torch import Tensor, nn

import clip_core
import clip_core.towers.text
from clip_core.building import build
from clip_core.config import TextConfig
from clip_core.errors import ConfigError

pytestmark = pytest.mark.parity

PLAIN = TextConfig(context_length=12, vocab_size=50, width=32, layers=3, heads=4, mlp_dim=80, activation="gelu")
FEATURES = 16

CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "tanh_and_epsilon": {"activation": "gelu_tanh", "norm_eps": 1e-3},
    "both_ways_last": {"causal": False, "pool": "last"},
    "both_ways_first": {"causal": False, "pool": "first"},
    "end_of_text": {"pool": "eos", "eos_id": 2},
    "layer_scale": {"layer_scale": 0.5},
    "with_bias": {"causal": False, "pool": "last", "projection": "linear_bias"},
    "no_projection": {"projection": "none"},
    "class_token": {"class_token": True},
    "class_token_padding_1": {"class_token": True, "pad_id": 1},
    "class_token_both_ways": {"class_token": True, "causal": False},
}


def make_peer(config: TextConfig, embed_dim: int, noise: float = 0.1) -> TextTransformer:
    """The peer's tower with random weights; the noise leaves none of them at 0 or 1, where a mistake could hide."""
    torch.manual_seed(0)
    peer = TextTransformer(
        context_length=config.context_length,
        vocab_size=config.vocab_size,
        width=config.width,
        heads=config.heads,
        layers=config.layers,
        mlp_ratio=config.mlp_dim / config.width,
        ls_init_value=config.layer_scale,
        output_dim=embed_dim,
        embed_cls=config.class_token,
        no_causal_mask=not config.causal,
        pad_id=config.pad_id,
        eos_id=2 if config.eos_id is None else config.eos_id,
        pool_type={"highest_id": "argmax"}.get(config.pool, config.pool),
        proj_type="none" if config.projection == "none" else "linear",
        proj_bias=config.projection == "linear_bias",
        act_layer=functools.partial(nn.GELU, approximate="tanh" if config.activation == "gelu_tanh" else "none"),
        norm_layer=functools.partial(nn.LayerNorm, eps=config.norm_eps),
        output_tokens=True,
    )
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter.add_(noise * torch.randn_like(parameter))
    return peer.eval()


def make_tokens(config: TextConfig, length: int) -> Tensor:
    """Rows that end early, late, at once and never, padded as the configuration pads."""
    torch.manual_seed(1)
    tokens = torch.randint(3, config.vocab_size - 1, (4, length))
    end = config.vocab_size - 1 if config.eos_id is None else config.eos_id
    for row, last in enumerate((1, length // 2, length - 1)):
        tokens[row, last] = end
        tokens[row, last + 1 :] = config.pad_id
    return tokens


def features_of(config: TextConfig) -> int:
    """Width of the tower's features."""
    return config.width if config.projection == "none" else FEATURES


def make_pair(case: str) -> tuple[clip_core.towers.text.TextTransformer, TextTransformer, TextConfig]:
    """Our tower and the peer's with the same weights."""
    config = dataclasses.replace(PLAIN, **CASES[case])
    peer = make_peer(config, features_of(config))
    ours = clip_core.towers.text.TextTransformer(config, features_of(config)).eval()
    ours.load_state_dict(peer.state_dict(), strict=True)
    return ours, peer, config


def shortened(peer: TextTransformer, config: TextConfig, length: int) -> TextTransformer:
    """The peer built for `length` tokens: it takes shorter rows only where it has a class token."""
    if config.class_token:
        return peer
    weights = peer.state_dict()
    short = make_peer(dataclasses.replace(config, context_length=length), features_of(config))
    short.load_state_dict({**weights, "positional_embedding": weights["positional_embedding"][:length]})
    return short


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("length", [12, 7])
def test_features_tokens_and_gradients_equal_open_clip(case: str, length: int) -> None:
    ours, peer, config = make_pair(case)
    peer = peer if length == config.context_length else shortened(peer, config, length)
    rows = make_tokens(config, length)
    features, tokens = ours.text_features_and_tokens(rows)
    expected, expected_tokens = peer(rows)
    torch.testing.assert_close(features, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(tokens, expected_tokens, atol=1e-5, rtol=0)
    for pooled, beside in ((features, tokens), (expected, expected_tokens)):
        (pooled.square().sum() + beside.sin().sum()).backward()
    compare_gradients(ours, peer)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("length", [12, 7])
def test_features_alone_and_their_gradients_equal_open_clip(case: str, length: int) -> None:
    ours, peer, config = make_pair(case)
    peer = peer if length == config.context_length else shortened(peer, config, length)
    rows = make_tokens(config, length)
    features, (expected, _) = ours(rows), peer(rows)
    torch.testing.assert_close(features, expected, atol=1e-5, rtol=0)
    for pooled in (features, expected):
        pooled.square().sum().backward()
    compare_gradients(ours, peer)


def compare_gradients(ours: nn.Module, peer: nn.Module) -> None:
    """To 1e-4 of each value or 1e-5 of the largest; the peer's may have fewer positions."""
    theirs = dict(peer.named_parameters())
    for name, parameter in ours.named_parameters():
        expected = theirs[name].grad
        gradient = parameter.grad[: len(expected)] if name == "positional_embedding" else parameter.grad
        largest = expected.abs().max().item()
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-5 * largest + 1e-9, msg=name)


@torch.no_grad()
@pytest.mark.parametrize("case", ["plain", "both_ways_last", "class_token"])
def test_intermediates_equal_open_clip(case: str) -> None:
    ours, peer, config = make_pair(case)
    rows = make_tokens(config, 12)
    output = peer.forward_intermediates(rows, output_fmt="NLC", output_extra_tokens=True)
    expected = output["text_intermediates"]
    if config.class_token:
        suffixes = output["text_intermediates_suffix"]
        expected = [torch.cat(pair, dim=1) for pair in zip(expected, suffixes, strict=True)]
    for layers, chosen in ((None, expected), ([-1, 0], [expected[2], expected[0]])):
        for mine, theirs in zip(ours.text_intermediates(rows, layers), chosen, strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_class_token_has_the_late_mask_of_published_weights_and_not_the_corrected_one() -> None:
    ours, peer, config = make_pair("class_token")
    rows = make_tokens(config, 12)
    assert not peer.correct_cls_mask
    peer.correct_cls_mask = True
    assert not torch.allclose(ours(rows), peer(rows)[0], atol=1e-3)


@pytest.mark.parametrize("case", CASES)
def test_the_same_parameters_are_trainable_for_every_number_of_unlocked_layers(case: str) -> None:
    ours, peer, _ = make_pair(case)
    for count in range(PLAIN.layers + 4):
        ours.lock_text(count)
        peer.lock(count)
        theirs = {name for name, parameter in peer.named_parameters() if parameter.requires_grad}
        assert {name for name, parameter in ours.named_parameters() if parameter.requires_grad} == theirs
    with pytest.raises(ConfigError, match="unlocked_layers is -2; allowed: 0"):
        ours.lock_text(-2)


def test_norms_stay_trainable_where_they_are_not_frozen() -> None:
    ours, _, _ = make_pair("plain")
    ours.lock_text(0, freeze_layer_norm=False)
    trained = {name for name, parameter in ours.named_parameters() if parameter.requires_grad}
    norms = {name for name, _ in ours.named_parameters() if ".ln_" in f".{name}"}
    assert trained == norms
    assert len(norms) == 2 * (2 * PLAIN.layers + 1)


@pytest.mark.parametrize("layout", ["flat", "nested"])
def test_locking_the_text_of_a_whole_model_leaves_the_rest_as_open_clip_does(layout: str) -> None:
    config = dataclasses.replace(clip_core.get_config("tiny"), layout=layout)
    ours = build(config, device="meta")
    image, text = config.image, config.text
    arguments: dict[str, Any] = {
        "embed_dim": config.embed_dim,
        "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 96, "layers": image.layers, "head_width": 32},
        "text_cfg": {"context_length": 32, "width": 96, "layers": text.layers, "heads": text.heads},
    }
    with torch.device("meta"):
        peer = (open_clip.model.CLIP if layout == "flat" else open_clip.model.CustomTextCLIP)(**arguments)
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in peer.state_dict().items()}
    assert ours.no_weight_decay() == peer.no_weight_decay()
    for count in range(5):
        for model in (ours, peer):
            model.requires_grad_(True)
            model.lock_text_tower(count)
        theirs = {name for name, parameter in peer.named_parameters() if parameter.requires_grad}
        assert {name for name, parameter in ours.named_parameters() if parameter.requires_grad} == theirs
        for model in (ours, peer):
            model.requires_grad_(True)
            model.lock_image_tower(count)
        theirs = {name for name, parameter in peer.named_parameters() if parameter.requires_grad}
        assert {name for name, parameter in ours.named_parameters() if parameter.requires_grad} == theirs


@pytest.mark.parametrize("case", ["plain", "class_token"])
def test_gradients_with_checkpointing_are_the_same(case: str) -> None:
    ours, _, config = make_pair(case)
    rows = make_tokens(config, 12)
    gradients = []
    for enable in (False, True):
        ours.set_text_grad_checkpointing(enable)
        ours.zero_grad()
        ours(rows).square().sum().backward()
        gradients.append({name: parameter.grad.clone() for name, parameter in ours.named_parameters()})
    for name, gradient in gradients[0].items():
        assert torch.equal(gradient, gradients[1][name]), name


@pytest.mark.parametrize("case", CASES)
def test_what_is_not_decayed_is_what_open_clip_does_not_decay(case: str) -> None:
    ours, peer, _ = make_pair(case)
    assert ours.no_text_weight_decay() == peer.no_weight_decay()


@pytest.mark.parametrize("case", ["plain", "layer_scale", "with_bias", "class_token"])
def test_fresh_weights_have_the_distributions_of_open_clip(case: str) -> None:
    config = dataclasses.replace(PLAIN, **CASES[case], width=256, mlp_dim=512, layers=2, vocab_size=500)
    ours = clip_core.towers.text.TextTransformer(config, FEATURES)
    for parameter in ours.parameters():
        nn.init.constant_(parameter, torch.nan)
    ours.reset_text_parameters()
    mine = ours.state_dict()
    for key, value in make_peer(config, FEATURES, noise=0).state_dict().items():
        spread = value.std().item()
        if spread == 0:
            assert torch.equal(mine[key], value), key
        else:
            error = 6 / value.numel() ** 0.5
            assert mine[key].std().item() == pytest.approx(spread, rel=error), key
            assert mine[key].mean().item() == pytest.approx(value.mean().item(), abs=error * spread * 1.5), key


@pytest.mark.parametrize("case", CASES)
def test_towers_compile_without_graph_breaks(case: str) -> None:
    ours, _, config = make_pair(case)
    rows = make_tokens(config, 12)
    torch._dynamo.reset()
    backend = "aot_eager" if case in ("plain", "class_token") else "eager"
    compiled = torch.compile(ours, backend=backend, fullgraph=True)
    torch.testing.assert_close(compiled(rows), ours(rows), atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
def test_low_precision_autocast_and_the_meta_device(case: str) -> None:
    ours, _, config = make_pair(case)
    rows = make_tokens(config, 12)
    expected = ours(rows)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = ours(rows)
    low = ours.bfloat16()(rows)
    assert low.dtype == torch.bfloat16
    for rough in (mixed, low):
        assert torch.nn.functional.cosine_similarity(rough.float(), expected).min() > 0.99
    assert ours.to("meta")(rows.to("meta")).shape == expected.shape


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text": {"projection": "none"}}, "ClipConfig.embed_dim is 128; allowed: the text tower's width 96"),
        ({"text": {"class_token": True}}, "ClipConfig.layout is 'flat'; allowed: 'nested' for a text tower with a"),
    ],
)
def test_towers_that_do_not_fit_their_model_are_refused(changes: dict[str, dict[str, Any]], message: str) -> None:
    tiny = clip_core.get_config("tiny")
    parts = {part: dataclasses.replace(getattr(tiny, part), **values) for part, values in changes.items()}
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(tiny, **parts)
