"""From a sample to pixels: what is tried again, what is an error, what is left out."""

from __future__ import annotations

import errno

import pytest
import torch

from clip_core.errors import DataError, ImageError
from clip_eval import reading
from clip_eval.reading import is_transient, read_pixels
from clip_eval.wds import open_dataset


def test_which_errors_may_pass() -> None:
    assert is_transient(OSError(errno.EIO, "Input/output error"))
    assert is_transient(TimeoutError())
    assert is_transient(ConnectionResetError())
    assert not is_transient(FileNotFoundError(errno.ENOENT, "gone"))
    assert not is_transient(PermissionError(errno.EACCES, "no"))
    assert not is_transient(ValueError())
    assert not is_transient(None)


def failing(monkeypatch, times: int, number: int) -> list[float]:
    """Reading fails so often; the pauses between the tries are noted instead of made."""
    pauses: list[float] = []
    real, left = reading.read_image_bytes, iter(range(times))

    def read(sample):
        if next(left, None) is not None:
            raise DataError("cannot be read") from OSError(number, "")
        return real(sample)

    monkeypatch.setattr(reading, "read_image_bytes", read)
    monkeypatch.setattr("clip_hub.retrying.sleep", pauses.append)
    return pauses


def test_a_disk_that_fails_for_a_moment_is_asked_again(bundle, make_classification, monkeypatch) -> None:
    sample = open_dataset(make_classification()).samples[0]
    expected = read_pixels(bundle, sample)
    pauses = failing(monkeypatch, 2, errno.EIO)
    found = read_pixels(bundle, sample)
    assert torch.equal(found, expected)
    assert len(pauses) == 2


def test_a_disk_that_stays_away_is_an_error_of_the_data(bundle, make_classification, monkeypatch) -> None:
    sample = open_dataset(make_classification()).samples[0]
    failing(monkeypatch, 100, errno.EIO)
    with pytest.raises(DataError, match="cannot be read, 5 times"):
        read_pixels(bundle, sample)


def test_a_file_that_is_gone_is_not_asked_for_again(bundle, make_classification, monkeypatch) -> None:
    sample = open_dataset(make_classification()).samples[0]
    pauses = failing(monkeypatch, 1, errno.ENOENT)
    with pytest.raises(DataError, match="cannot be read"):
        read_pixels(bundle, sample)
    assert not pauses


def test_a_broken_image_is_its_error(bundle, make_classification) -> None:
    sample = open_dataset(make_classification(labels=["0"], images=[b"broken"])).samples[0]
    found = read_pixels(bundle, sample)
    assert isinstance(found, ImageError)
    assert "s0000000.png" in str(found)
