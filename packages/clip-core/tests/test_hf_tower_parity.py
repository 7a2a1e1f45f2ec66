"""Text encoders of transformers against open_clip 3.3.0's HFTextEncoder on the same random weights.

Also covers clip_core.towers.hf and clip_core.presets.hf. The peer would fetch a configuration from the Hub; here it is
handed one that transformers makes of the same numbers.
"""

from __future__ import annotations

import dataclasses
import logging
import socket
import sys
from typing import Any

import open_clip
import pytest
import safetensors.torch
import torch
import transformers
from open_clip.hf_configs import arch_dict
from open_clip.hf_model import HFTextEncoder

import clip_core
from clip_core.building import build, lay_out
from clip_core.config import ClipConfig, HfTextConfig, HfTokenizerConfig
from clip_core.errors import ConfigError
from clip_core.presets import hf
from clip_core.towers.hf import HfTextTower

pytestmark = pytest.mark.parity

# The presets' encoders with two layers of width 32; everything else, ids of padding but ModernBERT's too, is theirs.
SMALL = {
    "bert": {"num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48, "max_position_embeddings": 40},
    "mt5": {"num_layers": 2, "num_heads": 4, "d_kv": 8, "d_ff": 48},
    "m2m_100": {"encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 48},
    # Four layers, so that one of them sees all tokens and three a window of 8.
    "modernbert": {"num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 48, "local_attention": 8},
}
ENCODERS = {
    "bert": dataclasses.replace(hf.ROBERTA_BASE, model_type="bert", pad_id=0),
    "roberta": hf.ROBERTA_BASE,
    "xlm-roberta": hf.XLM_ROBERTA_BASE,
    "mt5": hf.MT5_BASE,
    "m2m_100": hf.NLLB_600M,
    "modernbert": dataclasses.replace(hf.GTE_MODERNBERT_BASE, pad_id=2),
}
POOLERS = {"mean": "mean_pooler", "max": "max_pooler", "cls": "cls_pooler", "first": "cls_last_hidden_state_pooler"}
LENGTHS = (20, 1, 7, 12, 19)


def small(model_type: str, **changes: Any) -> HfTextConfig:
    config = ENCODERS[model_type]
    settings = {**dict(config.settings), **SMALL.get(model_type, SMALL["bert"])}
    return dataclasses.replace(
        config, settings=tuple(settings.items()), width=32, vocab_size=90, context_length=20, **changes
    )


def peer_config(config: HfTextConfig) -> transformers.PretrainedConfig:
    values = {**dict(config.settings), "vocab_size": config.vocab_size, "pad_token_id": config.pad_id}
    width = arch_dict.get(config.model_type, {"config_names": {"width": "hidden_size"}})["config_names"]["width"]
    return transformers.AutoConfig.for_model(config.model_type, **values, **{width: config.width})


class MaxPooler(torch.nn.Module):
    """The highest over the text. The peer's masks with integers, which torch refuses, and what it masks is the text."""

    def forward(self, output: Any, attention_mask: torch.Tensor) -> torch.Tensor:
        hidden = output.last_hidden_state
        return torch.stack([row[mask.bool()].max(0).values for row, mask in zip(hidden, attention_mask, strict=True)])


def peer_of(config: HfTextConfig, embed_dim: int, monkeypatch: pytest.MonkeyPatch) -> HFTextEncoder:
    # 3.3.0 does not know ModernBERT, and gives every other encoder an argument that ModernBERT does not take.
    names = {"config_names": {"width": "hidden_size", "layer_attr": "layers", "token_embeddings_attr": "embeddings"}}
    monkeypatch.setitem(arch_dict, "modernbert", names)
    theirs = peer_config(config)
    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", lambda name: theirs)
    peer = HFTextEncoder(
        "a name",
        embed_dim,
        config=theirs if config.model_type == "modernbert" else None,
        pooler_type=POOLERS[config.pool],
        proj_type=None if config.projection == "none" else config.projection,
        pretrained=False,
        output_tokens=True,
    ).eval()
    if config.pool == "max":
        peer.pooler = MaxPooler()
    return peer


def tokens_of(config: HfTextConfig) -> torch.Tensor:
    """Rows of several lengths, with padding behind them."""
    tokens = torch.randint(3, config.vocab_size, (len(LENGTHS), config.context_length))
    tokens[:, -1] = 3 + (tokens[:, -2] == 3)  # two equal ids at the end would pass for a foreign padding
    behind = torch.arange(config.context_length) >= torch.tensor(LENGTHS)[:, None]
    return tokens.masked_fill(behind, config.pad_id)


def pair(
    config: HfTextConfig, monkeypatch: pytest.MonkeyPatch, embed_dim: int = 24
) -> tuple[HfTextTower, HFTextEncoder]:
    torch.manual_seed(0)
    embed_dim = config.width if config.projection == "none" else embed_dim
    peer = peer_of(config, embed_dim, monkeypatch)
    for parameter in peer.parameters():  # norms and biases that are no ones and zeros
        parameter.data += 0.05 * torch.randn_like(parameter)
    ours = HfTextTower(config, embed_dim).eval()
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in peer.state_dict().items()}
    ours.load_state_dict(peer.state_dict())
    return ours, peer


CASES = [
    ("bert", "mean", "none"),
    ("bert", "cls", "linear"),
    ("bert", "first", "mlp"),
    ("roberta", "mean", "mlp"),
    ("roberta", "mean", "linear"),
    ("roberta", "cls", "none"),
    ("roberta", "max", "mlp"),
    ("xlm-roberta", "mean", "mlp"),
    ("xlm-roberta", "cls", "linear"),
    ("mt5", "mean", "mlp"),
    ("mt5", "max", "linear"),
    ("m2m_100", "cls", "linear"),
    ("m2m_100", "mean", "none"),
    ("modernbert", "cls", "linear"),
    ("modernbert", "mean", "mlp"),
]


@pytest.mark.parametrize(("model_type", "pool", "projection"), CASES)
def test_features_tokens_and_gradients_equal_open_clip(
    model_type: str, pool: str, projection: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small(model_type, pool=pool, projection=projection)
    ours, peer = pair(config, monkeypatch)
    tokens = tokens_of(config)
    features, hidden = ours.text_features_and_tokens(tokens)
    expected, theirs = peer(tokens)
    torch.testing.assert_close(features, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(hidden, theirs, atol=1e-5, rtol=0)
    assert torch.equal(ours.text_features(tokens), features)
    weights = torch.randn_like(features)
    (features * weights).sum().backward()
    (expected * weights).sum().backward()
    gradients = dict(peer.named_parameters())
    for name, parameter in ours.named_parameters():
        if parameter.grad is None:
            assert gradients[name].grad is None, name
        else:
            torch.testing.assert_close(parameter.grad, gradients[name].grad, atol=1e-5, rtol=1e-5, msg=name)


# Parameters of the text tower in millions, as the peer's table of all its models has them.
MILLIONS = {
    "roberta-ViT-B-32": 124.87,
    "xlm-roberta-base-ViT-B-32": 278.27,
    "xlm-roberta-large-ViT-H-14": 560.94,
    "mt5-base-ViT-B-32": 277.86,
    "mt5-xl-ViT-H-14": 1674.68,
    "nllb-clip-base": 414.04,
    "nllb-clip-base-siglip": 414.30,
    "nllb-clip-large": 767.14,
    "nllb-clip-large-siglip": 767.27,
}


@pytest.mark.parametrize("name", MILLIONS)
def test_every_model_has_the_keys_and_the_shapes_of_open_clip(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = clip_core.get_config(name)
    assert isinstance(config.text, HfTextConfig)
    theirs = peer_config(config.text)
    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", lambda name: theirs)
    arguments = open_clip.get_model_config(name)
    with torch.device("meta"):
        peer = open_clip.model._build_text_tower(
            arguments["embed_dim"], {**arguments["text_cfg"], "hf_model_pretrained": False}
        )
    ours = lay_out(config).text
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in peer.state_dict().items()}
    assert round(sum(p.numel() for p in ours.parameters()) / 1e6, 2) == MILLIONS[name]
    assert POOLERS[config.text.pool] == arguments["text_cfg"].get("hf_pooler_type", "mean_pooler")
    assert config.tokenizer.source.split("/")[-1] == arguments["text_cfg"]["hf_tokenizer_name"].split("/")[-1]
    assert config.text.context_length == 77  # the peer's tokenizer cuts there, for all of them


@pytest.mark.parametrize("model_type", ["bert", "roberta", "xlm-roberta", "mt5"])
@pytest.mark.parametrize("unlocked", [0, 1, 2, 3, 9])
def test_locking_leaves_the_same_parameters_as_open_clip(
    model_type: str, unlocked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 3.3.0 lacks two names of BERT's that RoBERTa has too.
    names = {**arch_dict["bert"]["config_names"], "layer_attr": "layer", "token_embeddings_attr": "embeddings"}
    monkeypatch.setitem(arch_dict["bert"], "config_names", names)
    for freeze_layer_norm in (True, False) if model_type != "mt5" else (True,):
        ours, peer = pair(small(model_type), monkeypatch)
        ours.lock_text(2)  # an earlier choice leaves no trace
        ours.lock_text(unlocked, freeze_layer_norm)
        peer.lock(unlocked, freeze_layer_norm)
        theirs = dict(peer.named_parameters())
        for name, parameter in ours.named_parameters():
            assert parameter.requires_grad == theirs[name].requires_grad, name


@pytest.mark.parametrize(("model_type", "norms"), [("mt5", 2 * 2 + 1), ("m2m_100", 4 * 2 + 2), ("modernbert", 9)])
def test_norms_stay_trainable_whatever_they_are_called(model_type: str, norms: int) -> None:
    tower = HfTextTower(small(model_type), 24)
    tower.lock_text(0, freeze_layer_norm=False)
    trained = [name for name, parameter in tower.transformer.named_parameters() if parameter.requires_grad]
    assert len(trained) == norms
    assert all("norm" in name for name in trained)
    assert tower.proj.weight.requires_grad if model_type != "mt5" else tower.proj[0].weight.requires_grad


@pytest.mark.parametrize("model_type", ENCODERS)
def test_intermediates_are_what_leaves_each_layer(model_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = small(model_type)
    ours, peer = pair(config, monkeypatch)
    tokens = tokens_of(config)
    outputs = ours.text_intermediates(tokens)
    seen = (tokens != config.pad_id).long()
    output = peer.transformer(input_ids=tokens, attention_mask=seen, output_hidden_states=True)
    for mine, theirs in zip(outputs[:-1], output.hidden_states[1:-1], strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=0)
    last_norm = {"mt5": "final_layer_norm", "m2m_100": "layer_norm", "modernbert": "final_norm"}.get(model_type)
    last = outputs[-1] if last_norm is None else getattr(peer.transformer, last_norm)(outputs[-1])
    torch.testing.assert_close(last, output.last_hidden_state, atol=1e-5, rtol=0)
    (picked,) = ours.text_intermediates(tokens, [-1])
    assert torch.equal(picked, outputs[-1])
    with pytest.raises(ConfigError, match="layers has 9"):
        ours.text_intermediates(tokens, [9])


@pytest.mark.parametrize("model_type", ENCODERS)
@torch.no_grad()
def test_padding_does_not_matter(model_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = small(model_type)
    ours, peer = pair(config, monkeypatch)
    tokens = tokens_of(config)
    # In evaluation the rows go sorted by length, without the padding that the peer computes.
    torch.testing.assert_close(ours.text_features(tokens), peer(tokens)[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(ours.text_features(tokens[2:4, :12]), peer(tokens[2:4])[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("model_type", ENCODERS)
def test_checkpointing_changes_no_gradient(model_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # In training mode, for only then transformers recomputes; so without dropout.
    quiet = {name: 0.0 for name, _ in ENCODERS[model_type].settings if "dropout" in name}
    config = small(model_type)
    config = dataclasses.replace(config, settings=tuple({**dict(config.settings), **quiet}.items()))
    tower = pair(config, monkeypatch)[0].train()
    tokens, gradients = tokens_of(config), []
    runs = [0]
    first = next(part for part in tower._layers()[0].modules() if isinstance(part, torch.nn.Linear))
    first.register_forward_pre_hook(lambda *_: runs.__setitem__(-1, runs[-1] + 1))
    for enable in (False, True, False):
        tower.set_text_grad_checkpointing(enable)
        tower.zero_grad()
        tower.text_features(tokens).square().sum().backward()
        gradients.append([p.grad.clone() for p in tower.parameters() if p.grad is not None])
        runs.append(0)
    assert runs == [1, 2, 1, 0]
    for plain, recomputed in zip(gradients[0], gradients[1], strict=True):
        torch.testing.assert_close(recomputed, plain, atol=1e-6, rtol=1e-5)


def whole(text: HfTextConfig) -> ClipConfig:
    """A model with `text` beside the image tower of `tiny`."""
    tokenizer = HfTokenizerConfig(
        context_length=text.context_length, source="some/one", clean="whitespace", pad_id=text.pad_id
    )
    return dataclasses.replace(
        clip_core.get_config("tiny"), embed_dim=24, text=text, layout="nested", tokenizer=tokenizer
    )


@pytest.mark.parametrize("model_type", ENCODERS)
def test_a_model_is_built_saved_and_loaded_without_a_network(
    model_type: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("somebody opened a socket")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    text = small(model_type)
    torch.manual_seed(3)
    drawn = build(whole(text))
    tokens = tokens_of(text)
    expected = drawn.encode_text(tokens)
    assert expected.isfinite().all()
    assert (expected[0] - expected[1]).abs().max() > 1e-3
    # Laid out on the meta device and filled from the file, with tables that no file holds.
    file = tmp_path / "weights.safetensors"
    state = {name: value.contiguous().clone() for name, value in drawn.state_dict().items()}
    safetensors.torch.save_file(state, file)
    loaded = build(whole(text), file)
    assert torch.equal(loaded.encode_text(tokens), expected)
    # The same weights in a tower that was built the ordinary way.
    ordinary = HfTextTower(text, 24).eval()
    ordinary.load_state_dict(drawn.text.state_dict())
    assert torch.equal(ordinary.text_features(tokens), expected)
    buffers = dict(ordinary.named_buffers())
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in loaded.text.named_buffers())


def test_rotary_frequencies_stay_exact_in_bfloat16() -> None:
    text = small("modernbert")
    exact = dict(HfTextTower(text, 24).named_buffers())
    model = build(whole(text), precision="bf16")
    features = model.encode_text(tokens_of(text))
    assert features.dtype == torch.bfloat16
    kept = dict(model.text.named_buffers())
    assert any(name.endswith("inv_freq") for name in kept)
    assert all(torch.equal(buffer, exact[name]) for name, buffer in kept.items())


@pytest.mark.parametrize("model_type", ENCODERS)
def test_fresh_weights_are_those_that_transformers_draws(model_type: str) -> None:
    text = small(model_type)
    torch.manual_seed(5)
    mine = build(whole(text)).text.state_dict()
    torch.manual_seed(5)
    again = build(whole(text)).text.state_dict()
    assert all(torch.equal(mine[name], again[name]) for name in mine)
    encoder = transformers.AutoModel.from_config(peer_config(text))
    encoder = encoder.encoder if model_type in ("mt5", "m2m_100") else encoder
    for name, value in encoder.state_dict().items():
        if name.startswith("pooler.") and text.pool != "cls":
            continue
        drawn = mine[f"transformer.{name}"]
        if value.std() == 0:
            assert torch.equal(drawn, value), name
        elif value.numel() > 1000:
            torch.testing.assert_close(drawn.std(), value.std(), rtol=0.15, atol=0, msg=name)


def test_tables_that_old_checkpoints_carry_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    tower = HfTextTower(small("roberta"), 24)
    state = tower.state_dict()
    old = {
        **state,
        "transformer.embeddings.position_ids": torch.arange(40)[None],
        "transformer.embed_positions.weights": torch.zeros(42, 32),
        "transformer.surprise": torch.zeros(1),
    }
    with caplog.at_level(logging.DEBUG, "clip_core"):
        adapted = tower.adapt_text_weights(old)
    assert set(adapted) == {*state, "transformer.surprise"}
    assert "transformer.embeddings.position_ids" in caplog.text


def test_learned_positions_and_segments_are_not_decayed() -> None:
    tower = HfTextTower(small("roberta"), 24)
    assert tower.no_text_weight_decay() == {
        "transformer.embeddings.position_embeddings.weight",
        "transformer.embeddings.token_type_embeddings.weight",
    }
    assert HfTextTower(small("mt5"), 24).no_text_weight_decay() == {
        "transformer.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    }
    assert HfTextTower(small("m2m_100"), 24).no_text_weight_decay() == set()


def test_without_transformers_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match=r'pip install "clip-core\[hf\]"'):
        clip_core.create_model("roberta-ViT-B-32", device="meta")


def test_a_configuration_that_cannot_be_built_is_refused() -> None:
    config = hf.ROBERTA_BASE
    with pytest.raises(ConfigError, match="settings .* for roberta exactly num_hidden_layers"):
        dataclasses.replace(config, settings=config.settings[1:])
    with pytest.raises(ConfigError, match="settings"):
        dataclasses.replace(config, settings=(*config.settings, ("hiden_size", 3)))
    with pytest.raises(ConfigError, match="context_length is 513; allowed: at most 512"):
        dataclasses.replace(config, context_length=513)
    with pytest.raises(ConfigError, match="pad_id is 50265"):
        dataclasses.replace(config, pad_id=50_265)
    with pytest.raises(ConfigError, match="projection is 'none'; .* not embed_dim 24"):
        HfTextTower(small("roberta", projection="none"), 24)
