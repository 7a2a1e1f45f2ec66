"""PaddleNLP's `model_state.pdparams` -> OpenCLIP's layout, for CLIP models with a vision transformer.

The file is a pickle. `ArrayUnpickler` builds NumPy arrays and plain containers out of it and refuses everything else,
so that opening a file runs none of its code. Paddle stores the matrix of a linear layer as (in, out), torch as
(out, in), and bfloat16 as the bits of a uint16. Names: `paddlenlp.transformers.clip`, which `config.json` beside the
file describes in transformers' words.
"""

from __future__ import annotations

import codecs
import collections
import os
import pickle
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clip_core.errors import CheckpointMismatch

__all__ = ["ArrayUnpickler", "read_pdparams", "to_openclip"]

_NAMES_OF_PARAMETERS = "StructuredToParameterName@@"


class ArrayUnpickler(pickle.Unpickler):
    """Reads a pickle of NumPy arrays in plain containers; anything else raises `pickle.UnpicklingError`."""

    def find_class(self, module: str, name: str) -> Any:
        """The callable that the pickle asks for by name, if it is one of the few that build arrays."""
        found = _admitted().get((module, name))
        if found is None:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return found


def _admitted() -> dict[tuple[str, str], Callable[..., Any]]:
    # The two functions that NumPy's own pickles name; where NumPy keeps them depends on its version, not the file's.
    array = np.empty(0, dtype=np.float32)
    reconstruct: Any = array.__reduce__()[0]
    found: dict[tuple[str, str], Callable[..., Any]] = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("collections", "OrderedDict"): collections.OrderedDict,
        ("_codecs", "encode"): _latin1,  # how Python 3 writes bytes in the oldest protocols
    }
    for home in ("numpy.core", "numpy._core"):
        found[f"{home}.multiarray", "_reconstruct"] = reconstruct
        found[f"{home}.numeric", "_frombuffer"] = _from_buffer
    for home in ("builtins", "__builtin__"):
        found[home, "tuple"] = tuple
    return found


def _latin1(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for the encoding {encoding!r}")
    return codecs.encode(text, "latin1")


def _from_buffer(buffer: Any, dtype: Any, shape: tuple[int, ...], order: Any) -> np.ndarray:
    return np.frombuffer(buffer, dtype=dtype).reshape(shape, order=order)


def read_pdparams(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a `.pdparams` file by Paddle's names, in memory that they share with what was unpickled.

    Raises:
        CheckpointMismatch: the file is missing or damaged, asks for more than arrays, or holds no parameters.
    """
    path = os.fspath(path)
    try:
        with open(path, "rb") as file:
            content = ArrayUnpickler(file, encoding="latin1").load()
    except FileNotFoundError as error:
        raise CheckpointMismatch(f"There is no weights file {path}.") from error
    except pickle.UnpicklingError as error:
        raise CheckpointMismatch(
            f"{path} is not a file of plain arrays and was not opened further, since that could run code: {error}. "
            "Save it again as a state dict of arrays, or ask its author for safetensors."
        ) from error
    except Exception as error:
        # A damaged pickle raises whatever it makes the machine trip over (EOFError, IndexError, ValueError ...).
        reason = str(error).split("\n")[0]
        raise CheckpointMismatch(
            f"Cannot read {path} as Paddle parameters ({type(error).__name__}: {reason})."
        ) from error
    if not isinstance(content, Mapping):
        raise CheckpointMismatch(f"{path} holds a {type(content).__name__}; allowed: a dict of parameters.")
    tensors: dict[str, Tensor] = {}
    for key, value in content.items():
        if key == _NAMES_OF_PARAMETERS:
            continue
        # A tensor pickled as itself is a pair: the name of its variable, its values.
        values = value[1] if isinstance(value, tuple) and len(value) == 2 else value
        if not isinstance(key, str) or not isinstance(values, np.ndarray) or values.dtype.kind not in "fiub":
            raise CheckpointMismatch(f"{path} holds {key!r}, which is not an array of numbers.")
        tensors[key] = _tensor(values)
    if not tensors:
        raise CheckpointMismatch(f"{path} holds no parameters.")
    return tensors


def _tensor(values: np.ndarray) -> Tensor:
    values = (
        values if values.flags.writeable and values.dtype.isnative else values.astype(values.dtype.newbyteorder("="))
    )
    if values.dtype == np.uint16:
        return torch.from_numpy(values.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(values)


# Paddle's name -> OpenCLIP's, for what stands once in a tower: (text, image).
_TEXT = {
    "token_embedding.weight": "token_embedding.weight",
    "positional_embedding.weight": "positional_embedding",
    "ln_final.weight": "ln_final.weight",
    "ln_final.bias": "ln_final.bias",
}
_IMAGE = {
    "class_embedding": "class_embedding",
    "conv1.weight": "conv1.weight",
    "positional_embedding.weight": "positional_embedding",
    "ln_pre.weight": "ln_pre.weight",
    "ln_pre.bias": "ln_pre.bias",
    "ln_post.weight": "ln_post.weight",
    "ln_post.bias": "ln_post.bias",
}
# Of a block; matrices are turned.
_BLOCK = {
    "norm1": "ln_1",
    "norm2": "ln_2",
    "linear1": "mlp.c_fc",
    "linear2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
_LAYER = re.compile(r"transformer\.layers\.(\d+)\.(.+)\.(weight|bias)")


def to_openclip(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """PaddleNLP's parameters of a `CLIPModel` in OpenCLIP's flat layout.

    `tensors` is emptied on the way, so that most of them are in memory once: nearly all are turned, or packed anew.

    Raises:
        CheckpointMismatch: a name that PaddleNLP's CLIP with a vision transformer does not have, or a missing one.
    """
    left = tensors
    for key in [key for key in left if key.startswith("clip.")]:
        left[key.removeprefix("clip.")] = left.pop(key)
    found: dict[str, Tensor] = {}
    try:
        found["logit_scale"] = left.pop("logit_scale").reshape(())
        found["text_projection"] = left.pop("text_projection")
        found["visual.proj"] = left.pop("vision_projection")
        for theirs, ours, once in (("text_model.", "", _TEXT), ("vision_model.", "visual.", _IMAGE)):
            for key, name in once.items():
                found[f"{ours}{name}"] = left.pop(f"{theirs}{key}")
            _blocks(left, theirs, ours, found)
    except KeyError as error:
        raise CheckpointMismatch(
            f"The Paddle parameters lack {error.args[0]}; allowed: PaddleNLP's CLIPModel with a ViT."
        ) from error
    # What the towers count with is no weight.
    strange = [key for key in left if not key.endswith("position_ids")]
    if strange:
        raise CheckpointMismatch(
            f"The Paddle parameters hold {min(strange)}, which PaddleNLP's CLIPModel with a ViT does not have."
        )
    return found


def _blocks(left: dict[str, Tensor], theirs: str, ours: str, found: dict[str, Tensor]) -> None:
    numbers = {
        int(match[1])
        for key in left
        if (match := _LAYER.fullmatch(key.removeprefix(theirs))) and key.startswith(theirs)
    }
    for number in sorted(numbers):
        block, target = f"{theirs}transformer.layers.{number}.", f"{ours}transformer.resblocks.{number}."
        for kind in ("weight", "bias"):
            packed = [_turned(left.pop(f"{block}self_attn.{name}_proj.{kind}")) for name in "qkv"]
            found[f"{target}attn.in_proj_{kind}"] = torch.cat(packed)
            for key, name in _BLOCK.items():
                found[f"{target}{name}.{kind}"] = _turned(left.pop(f"{block}{key}.{kind}"))


def _turned(value: Tensor) -> Tensor:
    return value.T.contiguous() if value.ndim == 2 else value
