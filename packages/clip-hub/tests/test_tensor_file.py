"""What is written piece by piece, as safetensors reads it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save

from clip_core.errors import ConfigError
from clip_hub.tensor_file import Entry, write_tensors

TENSORS = {
    "a": torch.randn(5, 3, dtype=torch.float64),
    "scalar": torch.tensor(2.5),
    "z": torch.randn(7, 2).bfloat16(),
    "half": torch.randn(3).half(),
    "steps": torch.tensor(7),
    "odd": torch.tensor([True, False, True]),
    "bytes": torch.arange(5, dtype=torch.uint8),
    "none": torch.empty(0, 4),
    "name with ünicode": torch.randn(2, 2),
}
ENTRIES = [Entry(name, value.dtype, tuple(value.shape)) for name, value in TENSORS.items()]


def test_safetensors_reads_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_tensors(path, ENTRIES, lambda entry: TENSORS[entry.name].reshape(-1).split(4))
    found = load_file(path)
    assert found.keys() == TENSORS.keys()
    for name, value in TENSORS.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value), name
    with safe_open(path, "pt") as opened:
        assert opened.metadata() == {"format": "pt"}
    # No byte more than its own writer takes.
    plain = {name: TENSORS[name] for name in ("a", "scalar", "half")}
    write_tensors(path, [entry for entry in ENTRIES if entry.name in plain], lambda entry: [plain[entry.name]])
    assert len(path.read_bytes()) == len(save(plain, metadata={"format": "pt"}))


def test_tensors_begin_at_multiples_of_their_width(tmp_path: Path) -> None:
    import json

    path = tmp_path / "x.safetensors"
    write_tensors(path, ENTRIES, lambda entry: [TENSORS[entry.name]])
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    assert length % 8 == 0
    for entry in ENTRIES:
        assert header[entry.name]["data_offsets"][0] % entry.dtype.itemsize == 0


def test_a_dtype_that_the_format_lacks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="w has dtype torch.complex64; allowed: torch.float64"):
        write_tensors(tmp_path / "x.safetensors", [Entry("w", torch.complex64, (2,))], lambda _: [])
    assert not (tmp_path / "x.safetensors").exists()
