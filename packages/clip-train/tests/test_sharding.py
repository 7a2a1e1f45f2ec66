"""A model in pieces (FSDP2) over two gloo processes against replicas (DDP): the same losses, norms and weights.

Rooms: clip_train.parallel.sharding, clip_train.parallel.spreading, clip_train.parallel.blocks.
"""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import clip_core
from clip_core.building import build
from clip_core.errors import ConfigError
from clip_train.config import ParallelConfig
from clip_train.lora import merged
from clip_train.parallel import clip_gradients, gathered, gradient_norm, is_sharded, spread, whole_weights
from clip_train.parallel.blocks import find_blocks
from clip_train.world import World

Found = list[dict[str, Any]]
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def found(shards: str, tmp_path_factory: pytest.TempPathFactory) -> Found:
    folder = tmp_path_factory.mktemp("spread")
    command = [sys.executable, str(Path(__file__).with_name("spread_world.py")), str(folder), shards]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize(
    ("replicas", "pieces"),
    [
        ("ddp", "fsdp"),
        ("ddp", "fsdp kept"),
        ("ddp", "ddp static"),
        ("ddp", "ddp compiled"),
        ("ddp", "fsdp compiled"),
        ("ddp accumulated", "fsdp accumulated"),
        ("ddp bf16", "fsdp bf16"),
        ("ddp siglip locked", "fsdp siglip locked"),
        ("ddp lora", "fsdp lora"),
        ("ddp", "fsdp offloaded"),
    ],
)
def test_pieces_train_as_replicas_do(found: Found, replicas: str, pieces: str) -> None:
    for rank in range(2):
        ours, theirs = found[rank][pieces], found[rank][replicas]
        assert ours["updated"] == theirs["updated"] == [True] * 5
        for key in ("loss", "grad_norm", "logit_scale"):
            assert ours[key] == pytest.approx(theirs[key], rel=1e-5)
            assert ours[key] == found[1 - rank][pieces][key]
    ours, theirs = found[0][pieces]["weights"], found[0][replicas]["weights"]
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=0, atol=1e-5, msg=name)


@pytest.mark.parametrize("kind", ["", " lora", " pure"])
def test_the_mean_of_the_weights_is_that_of_replicas(found: Found, kind: str) -> None:
    ours, theirs = found[0][f"fsdp{kind}"], found[0][f"ddp{kind}"]
    trained = [name for name, value in theirs["mean"].items() if not torch.equal(value, theirs["weights"][name])]
    assert len(trained) > 10
    # In bfloat16 a gradient that should be zero is noise, and each of Adam's steps goes as far as the rate one way.
    most = 1e-2 if kind == " pure" else 1e-5
    for name in trained:
        assert ours["mean"][name].dtype == theirs["mean"][name].dtype == torch.float32
        torch.testing.assert_close(ours["mean"][name], theirs["mean"][name], rtol=0, atol=most, msg=name)


def test_a_run_in_pieces_leaves_bundles_and_checkpoints_like_any_other(found: Found) -> None:
    folder = Path(found[0]["folders"]["pieces"])
    for name, kind in (("bundle", "weights"), ("bundle-ema", "mean")):
        for key, value in clip_core.load(folder / name).model.state_dict().items():
            torch.testing.assert_close(value, found[0]["fsdp"][kind][key], rtol=0, atol=1e-6, msg=key)
    written = list(folder.glob("checkpoints/step-00000003/shards/*.distcp"))
    assert len(written) == 2  # one of each process


@pytest.mark.parametrize("kind", ["pieces", "lora"])
def test_it_goes_on_from_pieces_with_the_mean_of_the_weights(found: Found, kind: str) -> None:
    """From a sharded checkpoint, and from one that the first process wrote."""
    for bundle in ("bundle", "bundle-ema"):
        one, other = (load_file(Path(found[0]["folders"][f"{kind}{end}"], bundle, WEIGHTS)) for end in ("", " again"))
        assert one.keys() == other.keys()
        assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_pieces_are_evaluated_as_replicas_are(found: Found) -> None:
    ours, theirs = (
        json.loads(Path(found[0]["folders"][name], "evaluations.jsonl").read_text(encoding="utf-8"))
        for name in ("pieces", "replicas")
    )
    assert ours.keys() == theirs.keys()
    assert theirs["val/num_samples"] == 40
    for name in ours:
        if name.startswith("val/"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-4), name


def test_additions_and_their_sum_come_out_of_pieces(found: Found) -> None:
    folder = Path(found[0]["folders"]["lora"])
    own, sums = found[0]["fsdp lora"]["weights"], merged(found[0]["fsdp lora"]["weights"], 2.0)
    for place in (folder, folder / "checkpoints" / "step-00000005"):
        weights = clip_core.load(folder / "bundle" if place == folder else place).model.state_dict()
        assert weights.keys() == sums.keys()
        for name, value in weights.items():
            torch.testing.assert_close(value, sums[name], rtol=0, atol=1e-6, msg=name)
        added = load_file(place / "adapters" / "image" / "adapter_model.safetensors")
        for name, value in added.items():
            inner = name.removeprefix("base_model.model.").replace(".weight", ".default.weight")
            torch.testing.assert_close(value, own[f"visual.{inner}"], rtol=0, atol=1e-6, msg=name)


def test_the_mean_of_weights_in_few_bits_is_left_in_many(found: Found) -> None:
    folder = Path(found[0]["folders"]["pure"])
    mean = load_file(folder / "bundle-ema" / WEIGHTS)["visual.proj"]
    assert mean.dtype == torch.float32
    assert not torch.equal(mean, mean.bfloat16().float())
    assert load_file(folder / "bundle" / WEIGHTS)["visual.proj"].dtype == torch.bfloat16


def test_each_process_keeps_half_of_the_weights_and_of_adams_memory(found: Found) -> None:
    whole = found[0]["ddp"]
    for rank in range(2):
        part = found[rank]["fsdp"]
        assert part["sharded"]
        assert part["numbers"] < 0.51 * whole["numbers"]
        assert part["held"] < 0.51 * whole["held"]
    assert found[1]["fsdp"]["weights"] == {}  # written by the first alone
    scale = "logit_scale"
    assert sum(one["fsdp"]["numbers"] for one in found) == whole["numbers"] + whole["weights"][scale].numel()


def test_one_loss_that_is_not_a_number_on_one_process_is_skipped_by_both(found: Found) -> None:
    for rank in range(2):
        broken = found[rank]["fsdp broken"]
        assert broken["updated"] == [True, True, False, True, True]
        assert math.isnan(broken["loss"][2])
        assert broken["loss"][:2] == found[rank]["fsdp"]["loss"][:2]
    assert all(value.isfinite().all() for value in found[0]["fsdp broken"]["weights"].values())


def test_a_model_in_pieces_encodes_together_and_apart(found: Found) -> None:
    for rank in range(2):
        encoded = found[rank]["fsdp"]["encoded"]
        for kind in ("image", "text"):
            torch.testing.assert_close(encoded[f"{kind} gathered"], encoded[kind], rtol=1e-5, atol=1e-6)
        assert torch.equal(encoded["image after"], encoded["image"])
        assert encoded["text"].shape == ((400, 128), (1, 128))[rank]
        assert found[rank]["plain norm"] == 3.0


def test_without_gradients_texts_are_not_divided_where_processes_share_weights() -> None:
    model = build(clip_core.get_config("tiny")).eval()
    words = [" ".join(f"{number}{place}" for place in range(20)) for number in range(400)]
    tokens = clip_core.get_tokenizer("tiny").tokenize(words).tokens
    calls: list[int] = []
    model.transformer.resblocks[0].register_forward_hook(lambda *given: calls.append(1))
    with torch.no_grad():
        divided = model.encode_text(tokens)
        assert len(calls) > 1
        calls.clear()
        model.undivided = True
        torch.testing.assert_close(model.encode_text(tokens), divided, rtol=1e-5, atol=1e-6)
    assert len(calls) == 1


def test_blocks_are_those_that_a_tower_repeats() -> None:
    names = {module: name for name, module in build(clip_core.get_config("tiny"), device="meta").named_modules()}
    model = next(iter(names))
    assert [names[block] for block in find_blocks(model)] == [
        *(f"transformer.resblocks.{number}" for number in range(len(model.transformer.resblocks))),
        *(f"visual.transformer.resblocks.{number}" for number in range(3)),
    ]
    resnet = build(clip_core.get_config("RN50"), device="meta")
    kinds = [type(block).__name__ for block in find_blocks(resnet)]
    assert len(kinds) == 16 + 12  # bottlenecks and residual blocks
    captioner = build(clip_core.get_config("coca_ViT-B-32"), device="meta")
    assert len(find_blocks(captioner)) == 12 + 12 + 24  # each layer of the decoder is two


def test_one_process_keeps_the_whole_model(caplog: pytest.LogCaptureFixture) -> None:
    model = build(clip_core.get_config("tiny"))
    assert spread(model, ParallelConfig(fsdp=True), World()) is model
    assert "there is one process" in caplog.text
    weights = whole_weights(model, World())
    assert weights.keys() == model.state_dict().keys()
    assert weights["visual.proj"].data_ptr() == model.get_parameter("visual.proj").data_ptr()
    with gathered(model):
        assert not is_sharded(model)


def test_norm_and_clipping_are_those_of_torch() -> None:
    torch.manual_seed(0)
    ours = [nn.Parameter(torch.zeros(3, 4)), nn.Parameter(torch.zeros(5)), nn.Parameter(torch.zeros(()))]
    theirs = [nn.Parameter(value.detach().clone()) for value in ours]
    for one, other in zip(ours, theirs, strict=True):
        one.grad = torch.randn_like(one)
        other.grad = one.grad.clone()
    norm = gradient_norm(ours)
    clip_gradients(ours, 0.5, norm)
    assert torch.equal(norm, torch.nn.utils.clip_grad_norm_(theirs, 0.5))
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one.grad, other.grad)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "fields",
    [
        {"fsdp_offload_cpu": True},
        {"fsdp_no_reshard_after_forward": True},
        {"fsdp": True, "ddp_static_graph": True},
        {"torchcompile_mode": "reduce-overhead"},
        {"torchcompile_backend": "eager"},
    ],
)
def test_flags_about_what_is_not_asked_for_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        ParallelConfig(**fields)


def test_shared_statistics_need_gpus() -> None:
    with pytest.raises(ConfigError, match="GPUs"):
        spread(
            build(clip_core.get_config("tiny")),
            ParallelConfig(use_bn_sync=True),
            dataclasses.replace(World(), size=2),
        )
