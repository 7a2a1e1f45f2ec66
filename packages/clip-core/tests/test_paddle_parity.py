"""`clip_core.convert.paddle` against transformers' CLIP: its weights, written as PaddleNLP would, come back as ours."""

from __future__ import annotations

import collections
import io
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clip_core.building import lay_out
from clip_core.config import VitConfig
from clip_core.convert.paddle import ArrayUnpickler, read_pdparams, to_openclip
from clip_core.errors import CheckpointMismatch
from clip_core.presets.parts import model, text_tower
from clip_core.weights import load_weights

pytestmark = pytest.mark.parity

LINEAR = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2", "text_projection", "visual_projection")
# transformers' words -> PaddleNLP's (its converter, read backwards).
WORDS = {
    "text_projection.weight": "text_projection",
    "visual_projection.weight": "vision_projection",
    "embeddings.position_embedding": "positional_embedding",
    "embeddings.token_embedding": "token_embedding",
    "embeddings.class_embedding": "class_embedding",
    "embeddings.patch_embedding": "conv1",
    "final_layer_norm": "ln_final",
    "pre_layrnorm": "ln_pre",
    "post_layernorm": "ln_post",
    "encoder.layers": "transformer.layers",
    "layer_norm": "norm",
    "mlp.fc": "linear",
}


@pytest.fixture(scope="module")
def peer() -> Any:
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(0)
    tower = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = CLIPConfig(
        text_config={**tower, "vocab_size": 60, "max_position_embeddings": 9, "hidden_act": "gelu", "eos_token_id": 2},
        vision_config={**tower, "image_size": 16, "patch_size": 8, "hidden_act": "gelu"},
        projection_dim=24,
    )
    peer = CLIPModel(config).eval()
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter.normal_(std=0.3)
    return peer


@pytest.fixture(scope="module")
def arrays(peer: Any) -> dict[str, np.ndarray]:
    found = {}
    for key, value in peer.state_dict().items():
        if key.endswith("position_ids"):
            continue
        turned = any(word in key for word in LINEAR) and value.ndim == 2
        for theirs, paddle in WORDS.items():
            key = key.replace(theirs, paddle)
        found[key] = (value.T if turned else value).reshape(value.T.shape if turned else (value.shape or (1,))).numpy()
    return found


def ours() -> Any:
    image = VitConfig(image_size=16, patch_size=8, width=32, layers=2, heads=4, mlp_dim=48, activation="gelu")
    return lay_out(model(24, image, text_tower(32, 2, 4, context_length=9, vocab_size=60, mlp_dim=48)))


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("pairs", [False, True], ids=["arrays", "pairs"])
def test_features_are_those_of_transformers(
    peer: Any, arrays: dict[str, np.ndarray], protocol: int, pairs: bool, tmp_path: Path
) -> None:
    path = tmp_path / "model_state.pdparams"
    content: dict[str, Any] = {key: (f"var_{key}", value) if pairs else value for key, value in arrays.items()}
    content["StructuredToParameterName@@"] = {key: f"var_{key}" for key in arrays}
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    clip = ours()
    load_weights(clip, to_openclip(read_pdparams(path)), path)
    images, tokens = torch.randn(3, 3, 16, 16), torch.randint(1, 59, (3, 9))
    tokens[:, -1] = 59  # the highest id, which is what the pooling of both looks for
    with torch.inference_mode():
        expected = peer(pixel_values=images, input_ids=tokens)
        torch.testing.assert_close(clip.encode_image(images, normalize=True), expected.image_embeds, atol=1e-5, rtol=0)
        torch.testing.assert_close(clip.encode_text(tokens, normalize=True), expected.text_embeds, atol=1e-5, rtol=0)
    assert torch.equal(clip.logit_scale, peer.logit_scale)


def test_bfloat16_is_read_from_its_bits(tmp_path: Path) -> None:
    values = torch.randn(5).to(torch.bfloat16)
    (tmp_path / "x.pdparams").write_bytes(pickle.dumps({"x": values.view(torch.int16).numpy().view(np.uint16)}))
    assert torch.equal(read_pdparams(tmp_path / "x.pdparams")["x"], values)


class Call:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.state = function, arguments

    def __reduce__(self) -> Any:
        return self.state


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "call",
    [
        (os.mkdir, "trap"),
        (eval, "__import__('os').mkdir('trap')"),
        (exec, "import os; os.mkdir('trap')"),
        (getattr, dict, "update"),
        (io.open, "trap", "w"),
        (np.fromfile, "/dev/null"),
        (torch.zeros, 1),
        (collections.Counter, "abc"),
    ],
    ids=lambda call: call[0].__name__,
)
def test_nothing_but_arrays_is_built(
    call: tuple[Any, ...], protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.pdparams").write_bytes(pickle.dumps({"w": np.zeros(3), "x": Call(*call)}, protocol=protocol))
    with pytest.raises(CheckpointMismatch, match="was not opened further, since that could run code: it asks for"):
        read_pdparams("x.pdparams")
    assert not Path("trap").exists()


def test_an_encoding_other_than_bytes_in_text_is_refused() -> None:
    # With the codec "unicode_escape" and friends the same function would do other work.
    stream = b"c_codecs\nencode\n(Va\nVrot13\ntR."
    with pytest.raises(pickle.UnpicklingError, match="rot13"):
        ArrayUnpickler(io.BytesIO(stream)).load()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "Cannot read .* as Paddle parameters"),
        (b"\x80\x04garbage", "x.pdparams"),
        (pickle.dumps([1, 2]), "holds a list; allowed: a dict of parameters"),
        (pickle.dumps({}), "holds no parameters"),
        (pickle.dumps({"x": 3}), "holds 'x', which is not an array of numbers"),
        (pickle.dumps({"x": np.array(["a"], dtype=object)}), "holds 'x', which is not an array of numbers"),
    ],
)
def test_a_file_without_parameters_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.pdparams").write_bytes(content)
    with pytest.raises(CheckpointMismatch, match=message):
        read_pdparams(tmp_path / "x.pdparams")


def test_another_model_is_refused_by_the_name_that_tells(arrays: dict[str, np.ndarray]) -> None:
    tensors = {key: torch.from_numpy(value.copy()) for key, value in arrays.items()}
    with pytest.raises(CheckpointMismatch, match="hold encoder.weight, which PaddleNLP's CLIPModel"):
        to_openclip({**tensors, "encoder.weight": torch.zeros(1)})
    del tensors["vision_model.ln_pre.bias"]
    with pytest.raises(CheckpointMismatch, match="lack vision_model.ln_pre.bias"):
        to_openclip(tensors)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointMismatch, match="There is no weights file"):
        read_pdparams(tmp_path / "none.pdparams")
