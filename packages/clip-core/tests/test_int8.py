"""int8 weights: how near the features stay, what is shared, what is refused."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

import clip_core
from clip_core.errors import ConfigError

pytest.importorskip("torchao")


def dtypes(value: object) -> set[torch.dtype]:
    """Of the plain tensors inside a tensor subclass; torchao nests them differently from version to version."""
    if type(value) in (torch.Tensor, torch.nn.Parameter):
        return {value.dtype}
    return set().union(*(dtypes(getattr(value, name)) for name in value.__tensor_flatten__()[0]))


@torch.inference_mode()
def test_features_stay_near_those_of_the_float_weights(tiny: clip_core.Bundle) -> None:
    small = clip_core.quantize(tiny.model)
    images, tokens = torch.randn(8, 3, 32, 32), tiny.tokenizer(["a cat", "two dogs on a sofa", "b " * 60])
    for float_features, int8_features in (
        (tiny.model.encode_image(images), small.encode_image(images)),
        (tiny.model.encode_text(tokens), small.encode_text(tokens)),
    ):
        assert not torch.equal(float_features, int8_features)
        assert torch.cosine_similarity(float_features, int8_features).min() > 0.999


def test_linear_layers_hold_bytes_and_the_rest_is_shared(tiny: clip_core.Bundle) -> None:
    small = clip_core.quantize(tiny.model)
    block, original = small.visual.transformer.resblocks[0], tiny.model.visual.transformer.resblocks[0]
    for layer in (block.attn.out_proj, block.mlp.c_fc, block.mlp.c_proj):
        assert torch.int8 in dtypes(layer.weight)
    assert torch.int8 in dtypes(block.attn.in_proj_weight)
    assert block.mlp.c_fc.bias.data_ptr() == original.mlp.c_fc.bias.data_ptr()
    assert small.token_embedding.weight.data_ptr() == tiny.model.token_embedding.weight.data_ptr()
    assert type(original.mlp.c_fc.weight) is torch.nn.Parameter
    assert all(parameter.requires_grad for parameter in tiny.model.parameters())
    assert not any(parameter.requires_grad for parameter in small.parameters())


def test_the_copy_is_not_saved(tiny: clip_core.Bundle, tmp_path: Path) -> None:
    small = clip_core.Bundle.of(clip_core.quantize(tiny.model))
    with pytest.raises(ConfigError, match="has quantized weights .*; save the model that it was made from"):
        clip_core.save(small, tmp_path / "small")
    assert not (tmp_path / "small").exists()


def test_what_cannot_be_quantized_is_refused(tiny: clip_core.Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="meta device has no weights to quantize"):
        clip_core.quantize(clip_core.create_model("tiny", device="meta"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'clip-core\[int8\]'"):
        clip_core.quantize(tiny.model)
