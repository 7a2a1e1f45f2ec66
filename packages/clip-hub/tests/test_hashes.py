"""Where a stated sha256 is found."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from clip_hub.hashes import is_pointer, sha256_of, stated_sha256

DIGEST = hashlib.sha256(b"weights").hexdigest()


def test_the_places_that_state_a_hash(tmp_path: Path) -> None:
    blob = tmp_path / "models--org--name" / "blobs" / DIGEST
    link = tmp_path / "models--org--name" / "snapshots" / ("c" * 40) / "model.safetensors"
    plain, addressed = tmp_path / "plain" / "model.safetensors", tmp_path / DIGEST / "model.safetensors"
    for path in (blob, link, plain, addressed):
        path.parent.mkdir(parents=True)
    for path in (blob, plain, addressed):
        path.write_bytes(b"weights")
    link.symlink_to(blob)
    assert sha256_of(link) == DIGEST
    assert stated_sha256(link) == (DIGEST, "the Hub's LFS record, in huggingface_hub's cache")
    assert stated_sha256(addressed) == (DIGEST, "the sha256 of its address")
    assert stated_sha256(plain) is None


@pytest.mark.parametrize("kind", ["sha256", "git"])
def test_the_record_of_a_download_into_a_folder_is_read_as_the_client_writes_it(tmp_path: Path, kind: str) -> None:
    from huggingface_hub import _local_folder

    etag = DIGEST if kind == "sha256" else "a" * 40
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    _local_folder.write_download_metadata(tmp_path, "model.safetensors", commit_hash="c" * 40, etag=etag)
    found = stated_sha256(tmp_path / "model.safetensors")
    assert found == ((DIGEST, "the Hub's LFS record, in model.safetensors.metadata") if kind == "sha256" else None)


def test_a_pointer_of_git_lfs_is_known(tmp_path: Path) -> None:
    pointer, other = tmp_path / "a", tmp_path / "b"
    pointer.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{DIGEST}\nsize 7\n")
    other.write_bytes(b"version")
    assert is_pointer(pointer)
    assert not is_pointer(other)
