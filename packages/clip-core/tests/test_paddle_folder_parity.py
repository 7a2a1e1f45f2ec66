"""Folders with PaddleNLP's `model_state.pdparams` against transformers: both ways of writing their `config.json`."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import clip_core
from clip_core.convert.paddle_config import PADDLE_WEIGHTS, paddle_settings
from clip_core.convert.transformers_tokenizer import TOKENIZER_FILES, clip_tokenizer_files
from clip_core.errors import CheckpointMismatch, ConfigError

transformers = pytest.importorskip("transformers", minversion="5.0")  # its image processors have other names before

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

TOWER = {"hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
OLD = {
    "image_resolution": 16,
    "vision_layers": 2,
    "vision_heads": 4,
    "vision_embed_dim": 32,
    "vision_patch_size": 8,
    "vision_mlp_ratio": 4,
    "vision_hidden_act": "gelu",
    "max_text_length": 9,
    "vocab_size": 49408,
    "text_embed_dim": 32,
    "text_heads": 4,
    "text_layers": 2,
    "text_hidden_act": "gelu",
    "projection_dim": 24,
    "logit_scale_init_value": 2.6592,
    "init_class": "CLIPModel",
}
# PaddleNLP's words for transformers', in this order; its converter read backwards.
WORDS = (
    ("text_projection.weight", "text_projection"),
    ("visual_projection.weight", "vision_projection"),
    ("embeddings.position_embedding", "positional_embedding"),
    ("embeddings.token_embedding", "token_embedding"),
    ("embeddings.class_embedding", "class_embedding"),
    ("embeddings.patch_embedding", "conv1"),
    ("final_layer_norm", "ln_final"),
    ("pre_layrnorm", "ln_pre"),
    ("post_layernorm", "ln_post"),
    ("encoder.layers", "transformer.layers"),
    ("layer_norm", "norm"),
    ("mlp.fc", "linear"),
)


@pytest.fixture(scope="module")
def peer() -> Any:
    torch.manual_seed(0)
    config = transformers.CLIPConfig(
        text_config={**TOWER, "max_position_embeddings": 9, "hidden_act": "gelu", "eos_token_id": 2},
        vision_config={**TOWER, "image_size": 16, "patch_size": 8, "hidden_act": "gelu"},
        projection_dim=24,
    )
    model = transformers.CLIPModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model


def write(peer: Any, folder: Path, settings: dict[str, Any] | None) -> None:
    """The files of the folder, with transformers' own configuration where `settings` is None."""
    arrays: dict[str, np.ndarray] = {}
    for key, value in peer.state_dict().items():
        matrix = value.ndim == 2 and "embedding" not in key
        for theirs, paddle in WORDS:
            key = key.replace(theirs, paddle)
        arrays[key] = np.ascontiguousarray(value.T if matrix else value.reshape(value.shape or (1,)))
    folder.mkdir(exist_ok=True)
    (folder / PADDLE_WEIGHTS).write_bytes(pickle.dumps(arrays, protocol=4))
    if settings is None:
        peer.config.save_pretrained(folder)
    else:
        (folder / "config.json").write_text(json.dumps(settings))
    transformers.CLIPImageProcessorPil(
        size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}
    ).save_pretrained(folder)
    for name, text in clip_tokenizer_files(9).items():
        (folder / name).write_text(text, encoding="utf-8")


@pytest.mark.parametrize("settings", [None, OLD], ids=["words of transformers", "words of PaddleNLP"])
def test_a_folder_gives_the_features_of_transformers(
    peer: Any, tmp_path: Path, settings: dict[str, Any] | None
) -> None:
    write(peer, tmp_path, settings)
    bundle = clip_core.load(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} >= {*TOKENIZER_FILES, "preprocessor_config.json", PADDLE_WEIGHTS}
    images, tokens = torch.randn(3, 3, 16, 16), bundle.tokenizer(["a red square", "a blue one", "nothing"])
    with torch.inference_mode():
        wanted = peer(pixel_values=images, input_ids=tokens)
        logits, _ = bundle.model.get_logits(images, tokens)
        features = bundle.model.encode_text(tokens, normalize=True)
    assert wanted.logits_per_image.std() > 1e-2
    assert (logits - wanted.logits_per_image).abs().max() < 1e-5
    assert (features - wanted.text_embeds).abs().max() < 1e-5
    assert bundle.config.preprocess.size == 16


def test_weights_of_torch_beside_them_are_preferred(peer: Any, tmp_path: Path) -> None:
    write(peer, tmp_path, None)
    (tmp_path / PADDLE_WEIGHTS).write_bytes(b"damaged")
    with pytest.raises(CheckpointMismatch, match=PADDLE_WEIGHTS):
        clip_core.load(tmp_path)
    peer.save_pretrained(tmp_path)
    clip_core.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vision_layers": [3, 4, 6, 3]}, "vision_layers is .3, 4, 6, 3., a ResNet"),
        ({"model_type": "ernie_vil"}, "model_type is 'ernie_vil'; allowed: 'clip'"),
    ],
)
def test_what_paddle_cannot_be_read_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        paddle_settings({**OLD, **change})
    with pytest.raises(ConfigError, match="layer_norm_eps is 0.1"):
        paddle_settings({"vision_config": {"layer_norm_eps": 0.1}})
