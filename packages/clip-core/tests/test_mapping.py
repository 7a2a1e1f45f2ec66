"""`clip_core.mapping`: values stay what they are, whether their pages were given back or were never a file's."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from clip_core.mapping import MappedPages

CPU = torch.device("cpu")


def of_files() -> int:
    """Bytes of files in the memory of this process."""
    found = re.search(r"RssFile:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


def written(tmp_path: Path) -> dict[str, torch.Tensor]:
    tensors = {"first": torch.randn(3, 1_000_003), "second": torch.randn(77, 4099), "third": torch.randn(5)}
    save_file(tensors, tmp_path / "x.safetensors")
    return tensors


def test_a_mapped_tensor_is_converted_piece_by_piece(tmp_path: Path) -> None:
    tensors = written(tmp_path)
    mapped = load_file(tmp_path / "x.safetensors")
    pages = MappedPages()
    for name, value in tensors.items():
        for dtype in (torch.bfloat16, torch.float64, torch.float32):
            assert torch.equal(pages.to(mapped[name], CPU, dtype), value.to(dtype))
    assert all(torch.equal(mapped[name], value) for name, value in tensors.items())


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc of Linux")
def test_pages_of_a_file_are_given_back_and_read_again(tmp_path: Path) -> None:
    tensors = written(tmp_path)
    mapped = load_file(tmp_path / "x.safetensors")
    pages = MappedPages()
    assert all(pages.hold(value) for value in mapped.values())
    assert not any(pages.hold(value) for value in tensors.values())
    assert not pages.hold(mapped["first"].T)
    mapped["first"].sum()
    before = of_files()
    pages.release(mapped["first"], tensors["first"])
    assert before - of_files() > 11e6
    pages.to(mapped["first"], CPU, torch.bfloat16)
    assert abs(before - of_files() - 12e6) < 1e6
    assert all(torch.equal(mapped[name], value) for name, value in tensors.items())


def test_what_is_no_file_is_left_alone() -> None:
    pages = MappedPages()
    values, empty = torch.randn(2_000_000), torch.empty(0, 4)
    kept = values.clone()
    pages.release(values, values[1:], empty)
    assert torch.equal(values, kept)
    assert pages.to(values, CPU, torch.float32) is values
    assert torch.equal(pages.to(values, CPU, torch.float64), values.double())
    assert pages.to(empty, CPU, torch.float64).shape == (0, 4)
    assert pages.to(torch.empty(4, device="meta"), torch.device("meta"), torch.float16).dtype == torch.float16
