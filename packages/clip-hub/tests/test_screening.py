"""Optimizer state, pickles and secrets are refused by name and by content; what only looks like one is not."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from clip_hub.screening import Refused, findings, screen

# Put together here, so that no scanner takes this file for a leak.
TOKEN = "hf_" + "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7cF0xR"


@pytest.mark.parametrize(
    "name",
    [
        ".env", "deep/.env.local", "prod.env", ".netrc", "id_rsa", "server.pem", "a.key", "wandb/settings",
        ".git/config", "credentials.json", "optimizer.safetensors", "optimizer_0.bin",
        "scheduler.safetensors", "rng_state_0.npz",
        "model.pt", "sub/pytorch_model.bin", "x.pkl", "last.ckpt", "training_args.bin", "trainer_state.json",
    ],
)  # fmt: skip
def test_names_that_are_refused(name: str) -> None:
    assert list(findings(name, b"nothing special"))


@pytest.mark.parametrize(
    "text",
    [
        TOKEN,
        "export HF_TOKEN=" + TOKEN,
        "-----BEGIN OPENSSH PRIVATE " + "KEY-----",
        "-----BEGIN PRIVATE " + "KEY-----",
        "AKIA" + "ABCDEFGHIJKLMNOP",
        "aws_secret_access_key = " + "a" * 40,
        "ghp_" + "a1" * 18,
        "WANDB_API_KEY=" + "0123456789" * 4,
        "machine api.wandb.ai login user password " + "secret",
        "sk-" + "a1b2" * 10,
        "pipe:curl https://someone:s3cret@host.org/x.tar",
        "Authorization: Bearer " + "abcdefghijkl",
        "https://bucket/x.tar?X-Amz-Signature=" + "0f" * 20,
    ],
)
def test_secrets_in_text(text: str, tmp_path: Path) -> None:
    assert list(findings("README.md", f"line\n{text}\nline".encode()))
    path = tmp_path / "notes.txt"
    # Over the border of the blocks that a file is read in.
    path.write_bytes(b"x " * ((1 << 21) - 5) + text.encode() + b" x" * 99)
    assert list(findings("notes.txt", path))


@pytest.mark.parametrize(
    "text",
    [
        "hf_text_tower_projection_layer_norm_weight",
        "https://github.com/openai/CLIP/blob/d50d76daa670286dd6cacf3bcd80b5e4823fc8e1/model-card.md",
        "sha256 be31177d7fd122f99acc03b195a744b5c0ae120de0259557863940c42cdfc74e",
        "s3://mybucket/path/laion{00000..00041}.tar",
        "hf-hub:someone/model",
        "run `hf auth login` or set HF_TOKEN",
        "git@github.com:someone/repo.git, mail someone@host.org, http://host:8080/x",
    ],
)
def test_what_is_no_secret(text: str) -> None:
    assert not list(findings("README.md", text.encode()))


def test_pickles_under_other_names(tmp_path: Path) -> None:
    for protocol in (2, 5):
        data = pickle.dumps({"a": 1}, protocol=protocol)
        assert list(findings("data.dat", data)) == ["is a pickle, whatever its name says"]
    torch.save({"a": torch.ones(2)}, tmp_path / "model.dat")
    assert list(findings("model.dat", tmp_path / "model.dat")) == ["is an archive with a pickle in it"]
    with zipfile.ZipFile(tmp_path / "texts.zip", "w") as archive:
        archive.writestr("a.txt", "words")
    assert not list(findings("texts.zip", tmp_path / "texts.zip"))


def test_safetensors_are_judged_by_their_heads(tmp_path: Path) -> None:
    save_file({"visual.proj": torch.ones(2)}, tmp_path / "good.safetensors")
    save_file({"state.0.exp_avg": torch.ones(2)}, tmp_path / "adam.safetensors")
    save_file({"a": torch.ones(2)}, tmp_path / "told.safetensors", metadata={"by": TOKEN})
    (tmp_path / "not.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0words...")
    assert not list(findings("good.safetensors", tmp_path / "good.safetensors"))
    assert list(findings("a.safetensors", tmp_path / "adam.safetensors")) == [
        "holds the state of an optimizer (state.0.exp_avg)"
    ]
    assert list(findings("b.safetensors", tmp_path / "told.safetensors")) == ["holds a Hugging Face token"]
    # A torch file states a head of 10^18 bytes, and another one may state what just fits in memory.
    torch.save({"a": torch.ones(2)}, tmp_path / "torch.safetensors")
    for name in ("not.safetensors", "torch.safetensors"):
        assert "is no safetensors file, whatever its name says" in list(findings(name, tmp_path / name))


def test_all_of_it_is_said_at_once_without_the_secret_itself() -> None:
    with pytest.raises(Refused) as stop:
        screen({"README.md": TOKEN.encode(), "x.pt": b"", "good.txt": b"words"})
    message = str(stop.value)
    assert "README.md: holds a Hugging Face token" in message
    assert "x.pt: is a pickle" in message
    assert "good.txt" not in message
    assert TOKEN not in message
    with pytest.raises(Refused, match="the token of this upload"):
        screen({"a.txt": b"my short-token"}, own_token="short-token")
