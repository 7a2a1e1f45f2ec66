"""A model in pieces (FSDP2) over two gloo processes against replicas (DDP): the same losses, norms and weights.

Rooms: clip_train.parallel.sharding, clip_train.parallel.spreading, clip_train.parallel.blocks.
"""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import clip_core
from clip_core.building import build
from clip_core.errors import ConfigError
from clip_train.config import ParallelConfig
from clip_train.parallel import clip_gradients, gathered, gradient_norm, is_sharded, spread, whole_bundle
from clip_train.parallel.blocks import find_blocks
from clip_train.world import World

Found = list[dict[str, Any]]


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


def test_the_mean_of_the_weights_is_that_of_replicas(found: Found) -> None:
    ours, theirs = found[0]["fsdp"], found[0]["ddp"]
    for name, value in theirs["mean"].items():
        torch.testing.assert_close(ours["mean"][name], value, rtol=0, atol=1e-5, msg=name)
    assert not torch.equal(ours["mean"]["visual.proj"], ours["weights"]["visual.proj"])


def test_a_run_in_pieces_leaves_bundles_and_checkpoints_like_any_other(found: Found) -> None:
    folder = Path(found[0]["bundles"])
    for name, kind in (("bundle", "weights"), ("bundle-ema", "mean")):
        for key, value in clip_core.load(folder / name).model.state_dict().items():
            torch.testing.assert_close(value, found[0]["fsdp"][kind][key], rtol=0, atol=1e-6, msg=key)
    written = list(folder.rglob("*.distcp"))
    assert len(written) == 2  # one of each process


def test_each_process_keeps_half_of_the_weights_and_of_adams_memory(found: Found) -> None:
    whole = found[0]["ddp"]
    for rank in range(2):
        part = found[rank]["fsdp"]
        assert part["sharded"]
        assert part["numbers"] < 0.51 * whole["numbers"]
        assert part["held"] < 0.51 * whole["held"]
    assert found[1]["fsdp"]["weights"] is None  # written by the first alone
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
    bundle = clip_core.Bundle.of(model)
    assert whole_bundle(bundle, World()) is bundle
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
