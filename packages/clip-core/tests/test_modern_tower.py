"""OpenCLIP's modern text tower against a plain one in NumPy with float64.

open_clip 3.3.0 does not have it. Also covers clip_core.towers.modern, clip_core.layers.gated, clip_core.layers.rotary
and clip_core.presets.modern.
"""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import clip_core
from clip_core.building import build
from clip_core.config import ModernTextConfig, TiktokenTokenizerConfig
from clip_core.errors import ConfigError
from clip_core.layers.rotary import rotary_table, rotate
from clip_core.towers.modern import ModernTextTower

Array = NDArray[np.float64]

SMALL = ModernTextConfig(
    context_length=20,
    vocab_size=53,
    width=32,
    layers=3,
    heads=4,
    mlp_dim=85,
    causal=True,
    pool="eos",
    eos_id=50,
    pad_id=51,
    gated_attention=True,
    query_key_norm=False,
    norm_eps=1e-5,
)
OPTIONS = [
    dataclasses.replace(SMALL, causal=causal, pool=pool, gated_attention=gated, query_key_norm=normed)
    for (causal, pool), (gated, normed) in itertools.product(
        [(True, "eos"), (False, "map"), (True, "map"), (False, "mean"), (False, "eos")],
        [(True, True), (True, False), (False, False)],
    )
]


def tower_of(config: ModernTextConfig) -> ModernTextTower:
    torch.manual_seed(0)
    tower = ModernTextTower(config, 24)
    with torch.no_grad():
        tower.reset_text_parameters()
        for parameter in tower.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return tower.eval()


def rows() -> torch.Tensor:
    """A text, a short one, one that fills the context, one whose end was cut off, and nothing but padding."""
    tokens = torch.randint(0, 50, (5, SMALL.context_length))
    for row, length in enumerate((8, 3, 20, 12, 0)):
        tokens[row, length:] = SMALL.pad_id
        if row < 3:
            tokens[row, length - 1] = SMALL.eos_id
    return tokens


def rms(x: Array, gain: Array, eps: float) -> Array:
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * gain


def softmax(x: Array) -> Array:
    powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def turned(x: Array, theta: float) -> Array:
    """(S, C): neighbours as one complex number each, times a unit number whose angle grows with the position."""
    length, channels = x.shape
    speed = theta ** (-np.arange(0, channels, 2) / channels)
    turn = np.exp(1j * np.arange(length)[:, None] * speed)
    pairs = (x[:, 0::2] + 1j * x[:, 1::2]) * turn
    return np.stack([pairs.real, pairs.imag], axis=-1).reshape(length, channels)


def reference(config: ModernTextConfig, weights: dict[str, Array], tokens: list[int]) -> Array:
    """The feature (D,) of one row of ids."""
    w, heads, eps = weights, config.heads, config.norm_eps
    # Only text goes in: what padding would do is what a tower must avoid.
    text = [token for token in tokens if token != config.pad_id] or tokens[:1]
    x = w["token_embedding.weight"][text]
    seen = np.tri(len(text), dtype=bool) if config.causal else np.ones((len(text), len(text)), dtype=bool)
    for layer in range(config.layers):
        p = f"blocks.{layer}."
        y = rms(x, w[p + "norm1.weight"], eps)
        query, key, value = (
            part.reshape(len(text), heads, -1) for part in np.split(y @ w[p + "attn.qkv.weight"].T, 3, axis=1)
        )
        if config.query_key_norm:
            query, key = rms(query, w[p + "attn.q_norm.weight"], eps), rms(key, w[p + "attn.k_norm.weight"], eps)
        mixed = np.empty_like(value)
        for head in range(heads):
            q, k = turned(query[:, head], config.rope_theta), turned(key[:, head], config.rope_theta)
            logits = np.where(seen, q @ k.T / np.sqrt(q.shape[1]), -np.inf)
            mixed[:, head] = softmax(logits) @ value[:, head]
        mixed = mixed.reshape(len(text), -1)
        if config.gated_attention:
            mixed = mixed * sigmoid(y @ w[p + "attn.gate.weight"].T)
        x = x + mixed @ w[p + "attn.proj.weight"].T
        values, gates = np.split(rms(x, w[p + "norm2.weight"], eps) @ w[p + "mlp.w12.weight"].T, 2, axis=1)
        x = x + (values * gates * sigmoid(gates)) @ w[p + "mlp.w3.weight"].T
    x = rms(x, w["ln_final.weight"], eps)
    if config.pool == "mean":
        pooled = x.mean(0)
    elif config.pool == "eos":
        pooled = x[text.index(config.eos_id) if config.eos_id in text else -1]
    else:
        query = (w["pool.query"][0, 0] @ w["pool.q.weight"].T).reshape(heads, -1)
        key, value = (part.reshape(len(text), heads, -1) for part in np.split(x @ w["pool.kv.weight"].T, 2, axis=1))
        if config.query_key_norm:
            query, key = rms(query, w["pool.q_norm.weight"], eps), rms(key, w["pool.k_norm.weight"], eps)
        share = softmax(np.einsum("hc,shc->hs", query, key) / np.sqrt(query.shape[1]))
        pooled = np.einsum("hs,shc->hc", share, value).reshape(-1)
    return pooled @ w["text_projection.weight"].T


@pytest.mark.parametrize("config", OPTIONS)
def test_features_equal_a_plain_reference_in_float64(config: ModernTextConfig) -> None:
    tower, tokens = tower_of(config), rows()
    weights = {name: value.double().numpy() for name, value in tower.state_dict().items()}
    expected = np.stack([reference(config, weights, row) for row in tokens.tolist()])
    with torch.no_grad():
        np.testing.assert_allclose(tower.text_features(tokens).numpy(), expected, atol=1e-5)
        # In float64 only the tables of angles are float32.
        np.testing.assert_allclose(tower.double().text_features(tokens).numpy(), expected, atol=2e-6)


@pytest.mark.parametrize("config", OPTIONS[::3])
def test_gradients_are_the_slopes_of_the_features(config: ModernTextConfig) -> None:
    tower, tokens = tower_of(config).double(), rows()[:4]
    weights = dict(tower.named_parameters())
    tower.text_features(tokens).square().sum().backward()
    for name in ("blocks.0.attn.qkv.weight", "blocks.1.mlp.w12.weight", "blocks.2.norm2.weight", "ln_final.weight"):
        parameter = weights[name]
        direction = torch.randn_like(parameter)
        with torch.no_grad():
            ends = []
            for step in (1e-5, -2e-5):
                parameter.add_(step * direction)
                ends.append(tower.text_features(tokens).square().sum())
            parameter.add_(1e-5 * direction)
        torch.testing.assert_close((parameter.grad * direction).sum(), (ends[0] - ends[1]) / 2e-5, rtol=1e-4, atol=1e-6)
    assert not weights["token_embedding.weight"].grad[config.pad_id].any()


@pytest.mark.parametrize("config", OPTIONS[::3])
def test_a_row_may_have_any_padding(config: ModernTextConfig) -> None:
    tower, tokens = tower_of(config), rows()[:2]
    with torch.no_grad():
        torch.testing.assert_close(tower.text_features(tokens[:, :8]), tower.text_features(tokens), atol=1e-5, rtol=0)


def test_a_rotation_keeps_lengths_and_depends_on_the_distance_alone() -> None:
    torch.manual_seed(0)
    cosines, sines = rotary_table(30, 8, 10_000.0, torch.device("cpu"))
    assert cosines.shape == sines.shape == (30, 4)
    query, key = torch.randn(8, dtype=torch.float64), torch.randn(8, dtype=torch.float64)
    queries, keys = (rotate(x.expand(30, 8), cosines, sines) for x in (query, key))
    torch.testing.assert_close(queries.norm(dim=-1), query.norm().expand(30), atol=1e-6, rtol=0)
    torch.testing.assert_close(queries[0], query)
    products = queries @ keys.T
    for distance in (0, 3, 17):
        along = products.diagonal(distance)
        torch.testing.assert_close(along, along[:1].expand_as(along), atol=1e-5, rtol=0)
    # 17 positions apart it is not what it is at the same position.
    assert (products[0, 0] - products[0, 17]).abs() > 0.1


def test_angles_keep_their_precision_in_bfloat16() -> None:
    exact = rotate(torch.ones(1, 256, 64), *rotary_table(256, 64, 10_000.0, torch.device("cpu")))
    rounded = rotate(torch.ones(1, 256, 64, dtype=torch.bfloat16), *rotary_table(256, 64, 1e4, torch.device("cpu")))
    torch.testing.assert_close(rounded.float(), exact, atol=0.02, rtol=0)


@pytest.mark.parametrize("pool", ["eos", "map"])
def test_the_interface_of_a_text_tower(pool: str) -> None:
    tower, tokens = tower_of(dataclasses.replace(SMALL, pool=pool, causal=pool == "eos")), rows()
    features, hidden = tower.text_features_and_tokens(tokens)
    assert torch.equal(features, tower.text_features(tokens))
    assert torch.equal(features, tower(tokens))
    outputs = tower.text_intermediates(tokens)
    assert [output.shape for output in outputs] == [(5, 20, 32)] * 3
    assert torch.equal(tower.ln_final(outputs[-1]), hidden)
    last, first = tower.text_intermediates(tokens, [-1, 0])
    assert torch.equal(last, outputs[2])
    assert torch.equal(first, outputs[0])
    with pytest.raises(ConfigError, match="layers has 3"):
        tower.text_intermediates(tokens, [3])
    assert tower.no_text_weight_decay() == ({"pool.query"} if pool == "map" else set())
    assert tower.no_text_weight_decay() <= {name for name, _ in tower.named_parameters()}


def test_checkpointing_changes_no_gradient() -> None:
    tower, tokens = tower_of(OPTIONS[1]), rows()
    runs: list[int] = []
    tower.blocks[0].mlp.register_forward_pre_hook(lambda *_: runs.append(1))
    gradients = []
    for enable in (False, True):
        tower.set_text_grad_checkpointing(enable)
        tower.zero_grad()
        tower.text_features(tokens).square().sum().backward()
        gradients.append({name: p.grad.clone() for name, p in tower.named_parameters() if p.grad is not None})
    assert len(runs) == 3
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


def test_locking_leaves_the_last_groups() -> None:
    tower = tower_of(OPTIONS[3])

    def trained() -> set[str]:
        names = [name.split(".") for name, parameter in tower.named_parameters() if parameter.requires_grad]
        return {".".join(name[:2]) if name[0] == "blocks" else name[0] for name in names}

    for count, expected in (
        (0, set()),
        (1, {"pool", "text_projection"}),
        (2, {"pool", "text_projection", "ln_final", "blocks.2"}),
        (4, {"pool", "text_projection", "ln_final", "blocks.2", "blocks.1", "blocks.0"}),
    ):
        tower.lock_text(count)
        assert trained() == expected
    tower.lock_text(9)
    assert all(parameter.requires_grad for parameter in tower.parameters())
    tower.lock_text(0, freeze_layer_norm=False)
    assert {name for name, p in tower.named_parameters() if p.requires_grad} == {
        name for name, _ in tower.named_parameters() if "norm" in name or name == "ln_final.weight"
    }
    with pytest.raises(ConfigError, match="unlocked_layers is -1"):
        tower.lock_text(-1)


def test_a_model_is_drawn_with_the_spread_of_open_clip() -> None:
    wide = dataclasses.replace(OPTIONS[3], width=256, mlp_dim=682)
    tokenizer = TiktokenTokenizerConfig(
        context_length=20, name="r50k_base", clean="none", bos_id=52, eos_id=50, pad_id=51
    )
    tiny = clip_core.get_config("tiny")
    torch.manual_seed(0)
    model = build(dataclasses.replace(tiny, text=wide, layout="nested", tokenizer=tokenizer))
    state = model.text.state_dict()
    narrow, branch = 256**-0.5, 256**-0.5 / 6**0.5  # 3 layers, 2 branches each
    spreads = {
        "token_embedding.weight": 0.02,
        "blocks.1.attn.qkv.weight": narrow,
        "blocks.1.attn.gate.weight": narrow,
        "blocks.1.attn.proj.weight": branch,
        "blocks.1.mlp.w12.weight": 1.22 * 512**-0.5,
        "blocks.1.mlp.w3.weight": branch,
        "pool.query": narrow,
        "pool.q.weight": narrow,
        "pool.kv.weight": narrow,
        "text_projection.weight": narrow,
    }
    for name, spread in spreads.items():
        assert abs(state[name].std().item() / spread - 1) < (0.2 if name == "pool.query" else 0.05), name
    assert all(bool((state[name] == 1).all()) for name in state if "norm" in name or name == "ln_final.weight")
    assert not state["token_embedding.weight"][wide.pad_id].any()
    assert model.encode_text(rows()).isfinite().all()


def test_presets_have_the_sizes_of_open_clips_repository() -> None:
    names = [name for name in clip_core.list_models() if name.startswith("moderntext")]
    assert len(names) == 5
    for name in names:
        config = clip_core.get_config(name)
        assert isinstance(config.text, ModernTextConfig)
        assert config.text.mlp_dim == int(config.text.width * 2.6666667)  # its ratio
        assert config.text.width == config.embed_dim
        assert config.text.width // config.text.heads == 64
        # r50k_base has 50,257 ids; the end, the padding and the start of a text stand behind them.
        assert (config.text.eos_id, config.text.pad_id, config.tokenizer.bos_id) == (50_257, 50_258, 50_259)
        assert (config.tokenizer.eos_id, config.tokenizer.pad_id) == (50_257, 50_258)
        assert config.tokenizer.bos_id == config.text.vocab_size - 1


def test_an_id_beyond_the_vocabulary_is_refused() -> None:
    with pytest.raises(ConfigError, match="pad_id is 53; allowed: an id below vocab_size 53"):
        dataclasses.replace(SMALL, pad_id=53)
    with pytest.raises(ConfigError, match="heads is 32; allowed: heads of even width in 32"):
        dataclasses.replace(SMALL, heads=32)
