"""Writing a safetensors file piece by piece, so that no more of it than a piece is ever in memory.

The format is that of https://github.com/huggingface/safetensors: the length of a JSON header, the header, the bytes.
What this room leaves out: reading, which maps the file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from clip_core.errors import ConfigError

__all__ = ["PIECE", "Entry", "write_tensors"]

PIECE = 1 << 18
"""Elements that are worked on at once: 1 MB in float32."""

_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


class Entry(NamedTuple):
    """A tensor that is going to be written."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """What it takes in the file."""
        return math.prod(self.shape) * self.dtype.itemsize


def write_tensors(path: Path, entries: Sequence[Entry], pieces: Callable[[Entry], Iterable[Tensor]]) -> None:
    """Write `entries` to `path`; `pieces` gives the values of one, flat, in order, in its dtype.

    Raises:
        ConfigError: a dtype that safetensors does not have.
        OSError: as of any file.
    """
    # Wide ones first, as safetensors' own writer has them: so every tensor begins at a multiple of its width.
    ordered = sorted(entries, key=lambda entry: (-entry.dtype.itemsize, entry.name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for entry in ordered:
        if entry.dtype not in _NAMES:
            allowed = ", ".join(map(str, _NAMES))
            raise ConfigError(f"{entry.name} has dtype {entry.dtype}; allowed: {allowed}.")
        end = offset + entry.nbytes
        header[entry.name] = {"dtype": _NAMES[entry.dtype], "shape": list(entry.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for entry in ordered:
            written = 0
            for piece in pieces(entry):
                assert piece.dtype == entry.dtype, entry
                content: Any = piece.contiguous().reshape(-1).view(torch.uint8).numpy()
                written += stream.write(content)
            assert written == entry.nbytes, entry
