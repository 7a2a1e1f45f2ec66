"""`clip_core.kernels.explain`: each part of a model, what it runs with on a device that need not be here, and why."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import clip_core
from clip_core import config
from clip_core.kernels import dispatch, explain, measured, use_backend
from clip_core.kernels.measured import Measured

ROWS = (
    Measured("sm_90", "attention", "bfloat16", True, 64, 50, False, 2.0, "NVIDIA H200", "2026-01-02"),
    Measured("sm_90", "packed_attention", "bfloat16", True, 64, 80, True, 4.5, "NVIDIA H200", "2026-01-02"),
    Measured("sm_90", "attention", "bfloat16", True, 64, 77, True, 1.1, "NVIDIA H200", "2026-01-02"),
)


def lines(model: str, **options: object) -> dict[str, str]:
    """What is said of each part, without the first line."""
    said = explain(clip_core.get_config(model), **options).splitlines()[1:]  # type: ignore[arg-type]
    parts = [line.removeprefix("  ").split(": ", 1) for line in said]
    assert len({part for part, _ in parts}) == len(parts)
    return dict(parts)  # type: ignore[arg-type]


def test_what_was_measured_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured, "MEASURED", ROWS)
    said = lines("ViT-B-32-quickgelu", architecture="sm_90", dtype=torch.bfloat16, training=True)
    assert said == {
        "image attention, 50 tokens, 12 heads of 64": "triton (2.00 times as fast as torch (NVIDIA H200, 2026-01-02))",
        "image attention, last layer": "torch (one query for each image)",
        "image activation quick_gelu": "torch (not measured on sm_90)",
        "text attention, 77 tokens, 8 heads of 64": "torch (the program is 1.10 times as fast as torch "
        "(NVIDIA H200, 2026-01-02), and 1.15 is asked for)",
        "text attention, packed, up to 77 tokens, 8 heads of 64": "triton (4.50 times as fast as torch "
        "(NVIDIA H200, 2026-01-02))",
        "text activation quick_gelu": "torch (not measured on sm_90)",
        "clip_loss": "triton (fewer passes over memory; its time is not measured on sm_90)",
    }
    forward = lines("ViT-B-32", architecture="sm_90", dtype=torch.bfloat16)
    assert forward["image attention, 50 tokens, 12 heads of 64"] == "torch (not measured on sm_90)"
    assert "clip_loss" not in forward


@pytest.mark.parametrize("name", clip_core.list_models())
def test_every_model_is_explained(name: str) -> None:
    said = lines(name, architecture="sm_90", dtype=torch.float16, training=True)
    assert any(part.startswith("image") for part in said)
    assert any(part.startswith("text") for part in said)
    assert ("siglip_loss" if clip_core.get_config(name).logit_bias is not None else "clip_loss") in said


def test_the_shapes_are_those_that_the_model_runs(tiny: clip_core.Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    choose = dispatch.attention_backend

    def record(operation: str, packed: torch.Tensor, longest: int, *, causal: bool) -> str:
        asked.append(f"{longest} tokens, {packed.shape[-2]} heads of {packed.shape[-1]}")
        return choose(operation, packed, longest, causal=causal)  # type: ignore[arg-type]

    monkeypatch.setattr(dispatch, "attention_backend", record)
    tiny.model.encode_image(torch.zeros(1, 3, 32, 32))
    tiny.model.transformer(torch.zeros(1, 32, 96))
    said = explain(tiny.model)
    assert set(asked) == {"17 tokens, 3 heads of 32", "32 tokens, 3 heads of 32"}
    assert all(shape in said for shape in asked)


def test_a_model_says_where_it_is_and_what_it_is_made_of(tiny: clip_core.Bundle) -> None:
    assert explain(tiny.model).startswith("On cpu in float32, forward:\n")
    assert explain(tiny.model.bfloat16(), training=True).startswith("On cpu in bfloat16, forward and backward:\n")
    assert "the programs are for CUDA devices, not for cpu" in explain(tiny.model)
    assert explain(clip_core.get_config("tiny")) == explain(clip_core.create_model("tiny"))


def test_a_gpu_that_is_here_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 6))
    monkeypatch.setattr(dispatch, "why_no_triton", lambda device: None)
    tiny = clip_core.get_config("tiny")
    assert explain(tiny, device="cuda").startswith("On sm_86 in float32")
    assert "not measured on sm_86" in explain(tiny, device="cuda", dtype=torch.bfloat16)
    assert "tokens, 3 heads of 32: torch (no program is chosen for float32" in explain(tiny, device="cuda")
    monkeypatch.setattr(dispatch, "why_no_triton", lambda device: "triton is not installed")
    said = explain(tiny, device="cuda", training=True).splitlines()
    assert all("triton is not installed" in line for line in said if "attention, 17" in line or "clip_loss" in line)
    assert "triton (" not in "".join(said)
    with use_backend("triton"):
        assert "triton (use_backend('triton'), an error: triton is not installed)" in explain(tiny, device="cuda")


def test_a_bundle_is_its_model(tiny: clip_core.Bundle) -> None:
    tiny.model.bfloat16()
    assert explain(tiny).startswith("On cpu in bfloat16, forward:\n")
    assert explain(tiny) == explain(tiny.model)


def test_whose_layers_a_tower_has_is_said() -> None:
    assert lines("RN50")["image tower"] == "torch (convolutions, and one query for each image)"
    timm = next(
        name for name in clip_core.list_models() if isinstance(clip_core.get_config(name).image, config.TimmConfig)
    )
    assert lines(timm)["image tower"] == "torch (its layers are timm's own)"


def test_what_is_forced_is_said() -> None:
    with use_backend("triton"):
        said = lines("ViT-L-14", architecture="sm_90", dtype=torch.bfloat16, training=True)
    assert said["text attention, 77 tokens, 12 heads of 64"] == "triton (use_backend('triton'))"
    assert "an error: the programs take sequences of up to 128" in said["image attention, 257 tokens, 16 heads of 64"]
    with use_backend("triton"):  # this process has not chosen the interpreter
        said = lines("ViT-B-32-quickgelu", training=True)
    wrong = {"image attention, last layer", "text attention, last layer"}
    assert all("triton (use_backend('triton'), an error: " in said[part] for part in said.keys() - wrong)
    with use_backend("torch"):
        assert lines("ViT-L-14", architecture="sm_90", training=True)["clip_loss"] == "torch (use_backend('torch'))"


@pytest.mark.parametrize("architecture", ["H100", "sm90", "sm_", "sm_9x", "sm_999"])
def test_a_wrong_architecture_is_named(architecture: str) -> None:
    with pytest.raises(clip_core.ConfigError, match=rf"architecture is '{architecture}'; allowed: sm_50, .*, sm_90, "):
        explain(clip_core.get_config("tiny"), architecture=architecture)


@pytest.mark.parametrize("device", ["cuda:99", "tpu", 1.5])
def test_a_device_that_is_not_here_is_named(device: object) -> None:
    with pytest.raises(clip_core.ConfigError, match=f"device is '{device}', which torch does not find here"):
        explain(clip_core.get_config("tiny"), device=device)  # type: ignore[arg-type]


def test_a_dtype_is_that_of_torch() -> None:
    with pytest.raises(clip_core.ConfigError, match="dtype is 'bf16'; allowed: a dtype of torch, as torch.bfloat16"):
        explain(clip_core.get_config("tiny"), dtype="bf16")  # type: ignore[arg-type]


def test_another_librarys_model_is_refused() -> None:
    with pytest.raises(clip_core.ConfigError, match="explain got Linear; allowed: a model of clip_core"):
        explain(nn.Linear(2, 2))
