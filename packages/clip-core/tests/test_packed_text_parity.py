"""Texts encoded without their padding against open_clip 3.3.0's text tower, which computes all of it, in float64.

Every kind of causal tower that a preset has, narrowed; ids that can be read and ids that cannot (a GPU's).
"""

from __future__ import annotations

import dataclasses

import pytest
import torch
from open_clip.transformer import QuickGELU, TextTransformer
from torch import Tensor, nn

import clip_core
import clip_core.towers.text
from clip_core.config import TextConfig

pytestmark = pytest.mark.parity

WIDTH, HEADS, LAYERS, FEATURES = 32, 4, 3, 16
END = 49


def kinds() -> dict[str, TextConfig]:
    """One name per kind of causal text tower among the presets, narrowed and with few ids."""
    found: dict[TextConfig, str] = {}
    for name in clip_core.list_models():
        text = clip_core.get_config(name).text
        if isinstance(text, TextConfig) and text.causal and not text.class_token:
            small = {"width": WIDTH, "heads": HEADS, "layers": LAYERS, "mlp_dim": 4 * WIDTH, "vocab_size": END + 1}
            found.setdefault(dataclasses.replace(text, **small), name)
    return {name: config for config, name in found.items()}


KINDS = kinds()


def make_pair(config: TextConfig) -> tuple[clip_core.towers.text.TextTransformer, TextTransformer]:
    """Our tower and the peer's in float64 with the same random weights, none of them at 0 or 1."""
    torch.manual_seed(0)
    peer = TextTransformer(
        context_length=config.context_length,
        vocab_size=config.vocab_size,
        width=config.width,
        heads=config.heads,
        layers=config.layers,
        output_dim=FEATURES,
        eos_id=2 if config.eos_id is None else config.eos_id,
        pool_type="argmax" if config.pool == "highest_id" else config.pool,
        act_layer=QuickGELU if config.activation == "quick_gelu" else nn.GELU,
        output_tokens=False,
    ).double()
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    ours = clip_core.towers.text.TextTransformer(config, FEATURES).double()
    ours.load_state_dict(peer.state_dict(), strict=True)
    return ours, peer


def make_texts(config: TextConfig) -> tuple[Tensor, Tensor]:
    """Rows of every length from 1 to the context, one of them with an end of text in its middle, and their lengths."""
    length = config.context_length
    end = END if config.eos_id is None else config.eos_id
    lengths = torch.randperm(length, generator=torch.Generator().manual_seed(1)) + 1
    tokens = torch.randint(3, END, (length, length), generator=torch.Generator().manual_seed(2))
    places = torch.arange(length)
    tokens = torch.where(places < lengths[:, None] - 1, tokens, 0)
    tokens[places, lengths - 1] = end
    longest = int(lengths.argmax())
    tokens[longest, length // 2] = end
    return tokens, lengths


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("seen", [True, False], ids=["ids on the CPU", "ids elsewhere"])
def test_features_and_every_gradient_equal_open_clip(name: str, seen: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    config = KINDS[name]
    ours, peer = make_pair(config)
    tokens, lengths = make_texts(config)
    if not seen:
        monkeypatch.setattr(clip_core.towers.text, "readable", lambda tokens: False)
    computed: list[int] = []
    ours.transformer.resblocks[0].register_forward_pre_hook(
        lambda module, inputs: computed.append(inputs[0].shape[:-1].numel())
    )
    features, expected = ours.text_features(tokens, lengths), peer(tokens)
    assert sum(computed) <= int(lengths.sum())
    assert (features - expected).abs().max() <= 1e-12 * expected.abs().max()
    weights = torch.randn_like(expected)
    for pooled in (features, expected):
        (pooled * weights).sum().backward()
    theirs = dict(peer.named_parameters())
    for key, parameter in ours.named_parameters():
        assert (parameter.grad - theirs[key].grad).abs().max() <= 1e-12 * theirs[key].grad.abs().max(), key


def test_the_kinds_are_those_of_the_families_with_a_causal_text() -> None:
    assert len(KINDS) >= 6
    assert {config.pool for config in KINDS.values()} == {"highest_id", "eos"}
    assert {config.activation for config in KINDS.values()} == {"gelu", "quick_gelu"}
