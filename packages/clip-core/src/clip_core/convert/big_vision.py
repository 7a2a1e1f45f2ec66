"""big_vision's `.npz` checkpoints of SigLIP and SigLIP 2 -> OpenCLIP's layout, whose image tower is timm's.

Shapes there: a dense kernel is (in, out); query, key and value are (W, H, C) and their biases (H, C) with H heads of
C channels; the output is (H, C, W); a convolution is (height, width, in, out). A model that was trained with scanned
layers holds each parameter of the blocks once, with the layers as first axis. Source: `models/vit.py` and
`models/proj/image_text` of google-research/big_vision.
"""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from clip_core.errors import CheckpointMismatch

__all__ = ["read_big_vision"]

Read = Callable[[str], np.ndarray]

# The parts of a block: (big_vision, timm, OpenCLIP).
_PARTS = (
    ("LayerNorm_0", "norm1", "ln_1"),
    ("LayerNorm_1", "norm2", "ln_2"),
    ("MlpBlock_0/Dense_0", "mlp.fc1", "mlp.c_fc"),
    ("MlpBlock_0/Dense_1", "mlp.fc2", "mlp.c_proj"),
)
_ATTENTION = "MultiHeadDotProductAttention_0"


def read_big_vision(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a SigLIP checkpoint in OpenCLIP's nested layout (`visual.trunk.`, `text.`), in float32.

    Raises:
        CheckpointMismatch: the file is missing or damaged, or holds another model than SigLIP.
    """
    try:
        with open(path, "rb") as file:  # np.load leaves a damaged file open
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it holds one array, not an archive of them")
            with archive:
                return _Checkpoint(archive, os.fspath(path)).convert()
    except FileNotFoundError as error:
        raise CheckpointMismatch(f"There is no weights file {os.fspath(path)}.") from error
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise CheckpointMismatch(f"Cannot read {os.fspath(path)} as a checkpoint of big_vision: {error}.") from error


class _Checkpoint:
    """One archive: gives its arrays out by name, and knows which of them nobody has asked for."""

    def __init__(self, archive: np.lib.npyio.NpzFile, path: str) -> None:
        self.archive, self.path = archive, path
        self.root = "params/" if any(name.startswith("params/") for name in archive.files) else ""
        # Checkpoints of training also hold the optimiser's state.
        self.left = {name.removeprefix(self.root) for name in archive.files if name.startswith(self.root)}

    def __call__(self, name: str) -> np.ndarray:
        if name not in self.left:
            raise CheckpointMismatch(
                f"{self.path} lacks the array {self.root + name!r}, so it is no whole checkpoint of SigLIP or "
                "SigLIP 2, which are the models that are read from big_vision."
            )
        self.left.remove(name)
        return np.asarray(self.archive[self.root + name], dtype=np.float32)

    def convert(self) -> dict[str, Tensor]:
        found = {
            "logit_scale": _tensor(self("t").reshape(())),
            "logit_bias": _tensor(self("b").reshape(())),
            **{f"visual.trunk.{key}": value for key, value in self.image()},
            **{f"text.{key}": value for key, value in self.text()},
        }
        if self.left:
            raise CheckpointMismatch(
                f"{self.path} holds {self.root}{min(self.left)}, which a SigLIP model does not have."
            )
        return found

    def image(self) -> Iterator[tuple[str, Tensor]]:
        yield "patch_embed.proj.weight", _tensor(self("img/embedding/kernel").transpose(3, 2, 0, 1))
        yield "patch_embed.proj.bias", _tensor(self("img/embedding/bias"))
        yield "pos_embed", _tensor(self("img/pos_embedding"))
        if "img/cls" in self.left:
            yield "cls_token", _tensor(self("img/cls"))
        for number, read in self.blocks("img/Transformer/"):
            block = f"blocks.{number}."
            yield from ((block + key, value) for key, value in _attention(read, "attn.qkv.", "attn.proj."))
            for theirs, timm, _ in _PARTS:
                yield from ((f"{block}{timm}.{key}", value) for key, value in _part(read, theirs))
        yield from ((f"norm.{key}", value) for key, value in _part(self, "img/Transformer/encoder_norm"))
        if "img/MAPHead_0/probe" in self.left:
            yield from ((f"attn_pool.{key}", value) for key, value in self.attention_pool("img/MAPHead_0/"))

    def attention_pool(self, prefix: str) -> Iterator[tuple[str, Tensor]]:
        yield "latent", _tensor(self(f"{prefix}probe"))

        def read(name: str) -> np.ndarray:
            return self(prefix + name)

        for kind in ("weight", "bias"):
            yield f"q.{kind}", _projection(read, "query", kind)
            yield f"kv.{kind}", torch.cat([_projection(read, name, kind) for name in ("key", "value")])
        yield from _output(read, "proj.")
        for theirs, ours in (
            ("LayerNorm_0", "norm"),
            ("MlpBlock_0/Dense_0", "mlp.fc1"),
            ("MlpBlock_0/Dense_1", "mlp.fc2"),
        ):
            yield from ((f"{ours}.{key}", value) for key, value in _part(read, theirs))

    def text(self) -> Iterator[tuple[str, Tensor]]:
        yield "token_embedding.weight", _tensor(self("txt/Embed_0/embedding"))
        yield "positional_embedding", _tensor(self("txt/pos_embedding")[0])
        for number, read in self.blocks("txt/Encoder_0/"):
            block = f"transformer.resblocks.{number}."
            yield from ((block + key, value) for key, value in _attention(read, "attn.in_proj_", "attn.out_proj."))
            for theirs, _, ours in _PARTS:
                yield from ((f"{block}{ours}.{key}", value) for key, value in _part(read, theirs))
        yield from ((f"ln_final.{key}", value) for key, value in _part(self, "txt/Encoder_0/encoder_norm"))
        if "txt/head/kernel" in self.left:
            yield from ((f"text_projection.{key}", value) for key, value in _part(self, "txt/head"))

    def blocks(self, prefix: str) -> Iterator[tuple[int, Read]]:
        """The number of each block under `prefix`, and how to read a parameter of it."""
        scanned = f"{prefix}encoderblock/"
        names = [name.removeprefix(scanned) for name in self.left if name.startswith(scanned)]
        if names:
            stacks = {name: self(scanned + name) for name in names}
            for number in range(len(stacks[names[0]])):
                yield number, lambda name, number=number: stacks[name][number]  # type: ignore[misc]
            return
        numbers = {int(match[1]) for name in self.left if (match := re.match(rf"{prefix}encoderblock_(\d+)/", name))}
        for number in sorted(numbers):
            yield number, lambda name, number=number: self(f"{prefix}encoderblock_{number}/{name}")  # type: ignore[misc]


def _part(read: Read, name: str) -> Iterator[tuple[str, Tensor]]:
    """Weight and bias of a norm (scale) or a dense layer (kernel, turned)."""
    if "LayerNorm" in name or name.endswith("_norm"):
        yield "weight", _tensor(read(f"{name}/scale"))
    else:
        yield "weight", _tensor(read(f"{name}/kernel").T)
    yield "bias", _tensor(read(f"{name}/bias"))


def _attention(read: Read, packed: str, out: str) -> Iterator[tuple[str, Tensor]]:
    for kind in ("weight", "bias"):
        yield f"{packed}{kind}", torch.cat([_projection(read, name, kind) for name in ("query", "key", "value")])
    yield from _output(read, out)


def _projection(read: Read, name: str, kind: str) -> Tensor:
    if kind == "bias":
        return _tensor(read(f"{_ATTENTION}/{name}/bias").reshape(-1))
    kernel = read(f"{_ATTENTION}/{name}/kernel")  # (W, H, C)
    return _tensor(kernel.reshape(len(kernel), -1).T)


def _output(read: Read, name: str) -> Iterator[tuple[str, Tensor]]:
    kernel = read(f"{_ATTENTION}/out/kernel")  # (H, C, W)
    yield f"{name}weight", _tensor(kernel.reshape(-1, kernel.shape[-1]).T)
    yield f"{name}bias", _tensor(read(f"{_ATTENTION}/out/bias"))


def _tensor(values: np.ndarray) -> Tensor:
    # NumPy gives a scalar an axis when it makes it contiguous.
    return torch.from_numpy(np.ascontiguousarray(values)).reshape(values.shape)
