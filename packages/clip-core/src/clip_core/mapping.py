"""Pages of weights files that are mapped into memory: giving them back once their values have been copied.

A mapped page counts as memory of the process from its first use on. Converting a model would so hold the whole file
beside the converted weights; here it holds a few megabytes of it. Linux only; elsewhere nothing is given back.
"""

from __future__ import annotations

import bisect
import ctypes
import mmap
import sys
from typing import Any

import torch
from torch import Tensor

__all__ = ["MappedPages"]

_PIECE = 1 << 21  # bytes that are read before they are given back
_AROUND = 1 << 21  # bytes that the system may map on either side of a page that is used: a large folio of its cache


class MappedPages:
    """The files that are mapped while this is made."""

    def __init__(self) -> None:
        self._ranges: list[tuple[int, int]] = _file_ranges() if sys.platform == "linux" else []
        self._libc: Any = ctypes.CDLL(None) if self._ranges else None

    def release(self, *tensors: Tensor) -> None:
        """Give back the pages of `tensors` that are of a file, and of those around; a later use reads them again.

        Only for files to whose tensors nobody has written: a written page would fall back to what the file holds.
        """
        for tensor in tensors:
            if tensor.numel() and self.hold(tensor):
                self._release(tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes)

    def trim(self) -> None:
        """Give memory that was freed back to the system, which glibc keeps otherwise."""
        if hasattr(self._libc, "malloc_trim"):
            self._libc.malloc_trim(0)

    def to(self, tensor: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
        """`tensor` on `device` in `dtype`, as `Tensor.to`; of a mapped one the pages are given back on the way."""
        if tensor.dtype == dtype and tensor.device == device:
            return tensor
        if not self.hold(tensor):
            return tensor.to(device=device, dtype=dtype)
        found = torch.empty(tensor.shape, dtype=dtype, device=device)
        source, target = tensor.view(-1), found.view(-1)
        step = _PIECE // tensor.element_size()
        for start in range(0, tensor.numel(), step):
            target[start : start + step].copy_(source[start : start + step])
            self.release(source[start : start + step])
        return found

    def hold(self, tensor: Tensor) -> bool:
        """Whether `tensor` is mapped from a file."""
        if tensor.device.type != "cpu" or not tensor.is_contiguous():
            return False
        return self._range(tensor.data_ptr()) != (0, 0)

    def _release(self, start: int, end: int) -> None:
        low, high = self._range(start)
        start, end = max(start - _AROUND, low), min(end + _AROUND, high)
        if self._libc is not None:
            start -= start % mmap.PAGESIZE
            self._libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), mmap.MADV_DONTNEED)

    def _range(self, address: int) -> tuple[int, int]:
        """The mapping that holds `address`, or nothing."""
        place = bisect.bisect_right(self._ranges, (address, sys.maxsize)) - 1
        low, high = self._ranges[place] if place >= 0 else (0, 0)
        return (low, high) if address < high else (0, 0)


def _file_ranges() -> list[tuple[int, int]]:
    """Addresses of the private mappings of files in this process."""
    found = []  # sorted, as the system lists them
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            addresses, access, _, _, inode, *_ = line.split(maxsplit=5)
            if access.endswith("p") and inode != "0":
                low, _, high = addresses.partition("-")
                found.append((int(low, 16), int(high, 16)))
    return found
