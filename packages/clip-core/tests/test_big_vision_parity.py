"""`clip_core.convert.big_vision` against open_clip's own reader of SigLIP checkpoints, bit for bit."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from clip_core.convert.big_vision import read_big_vision
from clip_core.errors import CheckpointMismatch

pytestmark = pytest.mark.parity

WIDTH, HEADS, MLP, LAYERS, CONTEXT, VOCABULARY, PATCH, GRID = 32, 4, 48, 2, 7, 50, 4, 3


def attention(width: int) -> dict[str, tuple[int, ...]]:
    channels = width // HEADS
    shapes: dict[str, tuple[int, ...]] = {}
    for name in ("query", "key", "value"):
        shapes |= {f"{name}/kernel": (width, HEADS, channels), f"{name}/bias": (HEADS, channels)}
    return {**shapes, "out/kernel": (HEADS, channels, width), "out/bias": (width,)}


def shapes(scanned: bool) -> dict[str, tuple[int, ...]]:
    mlp: dict[str, tuple[int, ...]] = {
        "Dense_0/kernel": (WIDTH, MLP),
        "Dense_0/bias": (MLP,),
        "Dense_1/kernel": (MLP, WIDTH),
        "Dense_1/bias": (WIDTH,),
    }
    norm: dict[str, tuple[int, ...]] = {"scale": (WIDTH,), "bias": (WIDTH,)}
    block = {
        **{f"LayerNorm_{n}/{key}": shape for n in (0, 1) for key, shape in norm.items()},
        **{f"MultiHeadDotProductAttention_0/{key}": shape for key, shape in attention(WIDTH).items()},
        **{f"MlpBlock_0/{key}": shape for key, shape in mlp.items()},
    }
    head = {
        **{f"LayerNorm_0/{key}": shape for key, shape in norm.items()},
        **{f"MultiHeadDotProductAttention_0/{key}": shape for key, shape in attention(WIDTH).items()},
        **{f"MlpBlock_0/{key}": shape for key, shape in mlp.items()},
        "probe": (1, 1, WIDTH),
    }
    found: dict[str, tuple[int, ...]] = {
        "t": (1,),
        "b": (1,),
        "img/embedding/kernel": (PATCH, PATCH, 3, WIDTH),
        "img/embedding/bias": (WIDTH,),
        "img/pos_embedding": (1, GRID**2, WIDTH),
        **{f"img/MAPHead_0/{key}": shape for key, shape in head.items()},
        "txt/Embed_0/embedding": (VOCABULARY, WIDTH),
        "txt/pos_embedding": (1, CONTEXT, WIDTH),
        "txt/head/kernel": (WIDTH, WIDTH),
        "txt/head/bias": (WIDTH,),
    }
    for tower in ("img/Transformer/", "txt/Encoder_0/"):
        found |= {f"{tower}encoder_norm/{key}": shape for key, shape in norm.items()}
        for key, shape in block.items():
            if scanned:
                found[f"{tower}encoderblock/{key}"] = (LAYERS, *shape)
            else:
                found |= {f"{tower}encoderblock_{n}/{key}": shape for n in range(LAYERS)}
    return found


def arrays(scanned: bool, root: str = "params/") -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {root + key: random.standard_normal(shape, dtype=np.float32) for key, shape in shapes(scanned).items()}


def peer(path: Path) -> dict[str, torch.Tensor]:
    from open_clip.convert import load_big_vision_weights
    from open_clip.transformer import TextTransformer
    from timm.models.vision_transformer import VisionTransformer

    trunk = VisionTransformer(
        img_size=PATCH * GRID,
        patch_size=PATCH,
        embed_dim=WIDTH,
        depth=LAYERS,
        num_heads=HEADS,
        mlp_ratio=MLP / WIDTH,
        class_token=False,
        global_pool="map",
        num_classes=0,
    )
    text = TextTransformer(
        context_length=CONTEXT,
        vocab_size=VOCABULARY,
        width=WIDTH,
        heads=HEADS,
        layers=LAYERS,
        mlp_ratio=MLP / WIDTH,
        output_dim=WIDTH,
        proj_bias=True,
        no_causal_mask=True,
        pool_type="last",
    )
    model: Any = SimpleNamespace(
        visual=SimpleNamespace(trunk=trunk), text=text, logit_bias=torch.empty(()), logit_scale=torch.empty(())
    )
    load_big_vision_weights(model, str(path))
    return {
        "logit_scale": model.logit_scale,
        "logit_bias": model.logit_bias,
        **{f"visual.trunk.{key}": value for key, value in trunk.state_dict().items()},
        **{f"text.{key}": value for key, value in text.state_dict().items()},
    }


@pytest.mark.parametrize("scanned", [False, True], ids=["a block each", "scanned"])
@pytest.mark.parametrize("root", ["params/", ""])
def test_every_tensor_is_the_peers(scanned: bool, root: str, tmp_path: Path) -> None:
    path = tmp_path / "siglip.npz"
    np.savez(path, **arrays(scanned, root))
    found, expected = read_big_vision(path), peer(path)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(found[key], value), key
    assert all(value.is_contiguous() for value in found.values())


def test_the_state_of_an_optimiser_is_passed_over(tmp_path: Path) -> None:
    np.savez(tmp_path / "siglip.npz", **arrays(False), **{"opt/0/img/embedding/bias": np.zeros(3)})
    assert not [key for key in read_big_vision(tmp_path / "siglip.npz") if "opt" in key]


def test_another_model_is_refused_by_the_name_that_tells(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    held = arrays(False)
    np.savez(path, **{**held, "params/img/register": np.zeros(3)})
    with pytest.raises(CheckpointMismatch, match="holds params/img/register, which a SigLIP model does not have"):
        read_big_vision(path)
    del held["params/txt/Encoder_0/encoderblock_1/LayerNorm_1/bias"]
    np.savez(path, **held)
    with pytest.raises(
        CheckpointMismatch,
        match="lacks the array 'params/txt/Encoder_0/encoderblock_1/LayerNorm_1/bias', so it is no whole",
    ):
        read_big_vision(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"\x93NUMPY and no more"])
def test_a_damaged_file_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(CheckpointMismatch, match="as a checkpoint of big_vision"):
        read_big_vision(tmp_path / "x.npz")


def test_pickled_arrays_are_not_opened(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", **{"params/t": np.array([{}], dtype=object), "params/b": np.zeros(1)})
    with pytest.raises(CheckpointMismatch, match="allow_pickle"):
        read_big_vision(tmp_path / "x.npz")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointMismatch, match="There is no weights file"):
        read_big_vision(tmp_path / "none.npz")
