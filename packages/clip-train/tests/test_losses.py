"""The losses over 1 to 4 processes (gloo) against one process with the whole batch, in float64 and written out."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from clip_core import kernels
from clip_core.errors import ConfigError
from clip_train.loss import ContrastiveLoss, clip_loss, siglip_loss
from clip_train.loss.agreement import _Card, _difference

_SPEC = importlib.util.spec_from_file_location("loss_world", Path(__file__).with_name("loss_world.py"))
assert _SPEC is not None
assert _SPEC.loader is not None
cases = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(cases)

KINDS, PAIRS, SCALE, BIAS = cases.KINDS, cases.PAIRS, cases.SCALE, cases.BIAS
Worlds = dict[Any, dict[str, Any]]
every_loss = pytest.mark.parametrize(("kind", "scheme"), KINDS)
every_world = pytest.mark.parametrize("world", [1, 2, 3, 4])
several = pytest.mark.parametrize("world", [2, 3, 4])


def by_matrix(kind: str, images: Tensor, texts: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    logits = scale * images @ texts.T
    if kind == "clip":
        return -(logits.log_softmax(1).diagonal() + logits.log_softmax(0).diagonal()).mean() / 2
    labels = 2 * torch.eye(len(images), dtype=images.dtype) - 1
    return -F.logsigmoid(labels * (logits + bias)).sum() / len(images)


def whole(kind: str, images: Tensor, texts: Tensor) -> dict[str, Tensor]:
    """Loss and gradients of one process with the whole batch, in float64."""
    values = [images.double(), texts.double(), torch.tensor(SCALE).double(), torch.tensor(BIAS).double()]
    inputs = [value.clone().requires_grad_() for value in values]
    loss = by_matrix(kind, *inputs)
    grads = torch.autograd.grad(loss, inputs, allow_unused=True)
    zero = torch.zeros((), dtype=torch.float64)
    return {"loss": loss.detach(), **{n: zero if g is None else g for n, g in zip("itsb", grads, strict=True)}}


def found(worlds: Worlds, world: int, case: str) -> list[Any]:
    """What `case` gave on every process of `world`."""
    return [worlds[world, rank][case] for rank in range(world)]


def check(results: list[dict[str, Any]], truth: dict[str, Tensor], *, factor: float = 1.0, **tolerance: float) -> None:
    """The mean over processes, as DDP takes it, is the whole batch's, and every gradient that is there is exact."""
    world = len(results)
    close = {"atol": 1e-12 * factor, "rtol": 1e-12, **tolerance}
    torch.testing.assert_close(torch.stack([r["loss"].double() for r in results]).mean(), truth["loss"], **close)
    for name in "it":
        for mine, result in zip(truth[name].chunk(world), results, strict=True):
            if result[name] is not None:
                torch.testing.assert_close(result[name].double() / world, mine * factor, **close)
    for name in "sb":
        given = [result[name] for result in results if result[name] is not None]
        if len(given) == world:
            mean = torch.stack(given).double().mean()
            torch.testing.assert_close(mean, truth[name] * factor, **close)


@every_world
@every_loss
@pytest.mark.parametrize("case", ["exact", "function", "tiles", "strided"])
def test_the_mean_over_processes_is_the_whole_batch(
    loss_worlds: Worlds, world: int, kind: str, scheme: str, case: str
) -> None:
    results = found(loss_worlds, world, f"{kind} {scheme} {case}")
    assert all(result[name] is not None for result in results for name in "itsb")
    check(results, whole(kind, *cases.batch(PAIRS * world)))


@every_world
@every_loss
def test_one_pair_on_each_process(loss_worlds: Worlds, world: int, kind: str, scheme: str) -> None:
    check(found(loss_worlds, world, f"{kind} {scheme} one pair"), whole(kind, *cases.batch(world)))


@every_world
@every_loss
def test_scalars_may_be_numbers_or_absent_or_have_a_dimension(
    loss_worlds: Worlds, world: int, kind: str, scheme: str
) -> None:
    exact = found(loss_worlds, world, f"{kind} {scheme} exact")
    numbers = found(loss_worlds, world, f"{kind} {scheme} numbers")
    assert all(torch.equal(number, result["loss"]) for number, result in zip(numbers, exact, strict=True))
    shaped = found(loss_worlds, world, f"{kind} {scheme} scale (1,)")
    assert all(a["s"].shape == (1,) and torch.equal(a["s"][0], b["s"]) for a, b in zip(shaped, exact, strict=True))
    if kind == "clip":
        plain = found(loss_worlds, world, f"{kind} {scheme} without bias")
        assert all(torch.equal(a["i"], b["i"]) for a, b in zip(plain, exact, strict=True))


@every_world
@every_loss
def test_processes_may_hold_the_pairs_in_any_order(loss_worlds: Worlds, world: int, kind: str, scheme: str) -> None:
    results = found(loss_worlds, world, f"{kind} {scheme} shuffled")
    order = torch.cat([result["order"] for result in results])
    truth = whole(kind, *cases.batch(PAIRS * world))
    check(results, {**truth, "i": truth["i"][order], "t": truth["t"][order]})


@every_world
@every_loss
def test_the_same_input_gives_the_same_bits(loss_worlds: Worlds, world: int, kind: str, scheme: str) -> None:
    first, second = (found(loss_worlds, world, f"{kind} {scheme} {case}") for case in ("exact", "again"))
    for a, b in zip(first, second, strict=True):
        assert all(torch.equal(a[name], b[name]) for name in a)


@every_world
@every_loss
def test_the_gradient_from_above_multiplies(loss_worlds: Worlds, world: int, kind: str, scheme: str) -> None:
    truth = whole(kind, *cases.batch(PAIRS * world))
    check(found(loss_worlds, world, f"{kind} {scheme} factor"), truth, factor=65536.0)
    for result, mine in zip(
        found(loss_worlds, world, f"{kind} {scheme} two backward"), truth["i"].chunk(world), strict=True
    ):
        torch.testing.assert_close(result / world, 2 * mine, atol=1e-12, rtol=1e-12)


@every_world
@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_half_precision_is_widened_once(
    loss_worlds: Worlds, world: int, kind: str, scheme: str, dtype: torch.dtype
) -> None:
    results = found(loss_worlds, world, f"{kind} {scheme} {dtype}")
    images, texts = (side.to(dtype) for side in cases.batch(PAIRS * world))
    for result in results:
        assert (result["loss"].dtype, result["s"].dtype) == (torch.float32, torch.float32)
        assert (result["i"].dtype, result["t"].dtype) == (dtype, dtype)
    rounding = torch.finfo(dtype).eps
    check(results, whole(kind, images, texts), atol=rounding + 2e-6, rtol=rounding + 2e-5)
    if dtype == torch.float32:
        under = found(loss_worlds, world, f"{kind} {scheme} autocast")
        assert all(torch.equal(a[name], b[name]) for a, b in zip(under, results, strict=True) for name in "itsb")


@several
@pytest.mark.parametrize("scheme", ["gather", "ring"])
def test_large_logits_are_as_exact_as_in_one_process(loss_worlds: Worlds, world: int, scheme: str) -> None:
    images, texts = cases.opposed(PAIRS * world)
    inputs = [value.double().requires_grad_() for value in (images, texts, torch.tensor(cases.LARGE_SCALE))]
    exact = dict(zip("its", torch.autograd.grad(by_matrix("clip", *inputs, torch.zeros(())), inputs), strict=True))
    alone = cases.gradients_of(kernels.clip_loss, images, texts, dtype=torch.float32, scale=cases.LARGE_SCALE)
    results = found(loss_worlds, world, f"clip {scheme} opposed")
    joined = {name: torch.cat([result[name] for result in results]) / world for name in "it"}
    joined["s"] = torch.stack([result["s"] for result in results]).mean()
    for name, truth in exact.items():
        ours, reference = (float((side[name].double() - truth).norm()) for side in (joined, alone))
        assert ours <= 1.2 * reference + 1e-7 * float(truth.norm()), name


@every_world
@every_loss
@pytest.mark.parametrize("frozen", ["i", "t", "it", "sb", "isb", "itsb"])
def test_what_is_frozen_has_no_gradient_and_changes_no_other(
    loss_worlds: Worlds, world: int, kind: str, scheme: str, frozen: str
) -> None:
    exact = found(loss_worlds, world, f"{kind} {scheme} exact")
    for result, full in zip(found(loss_worlds, world, f"{kind} {scheme} frozen {frozen}"), exact, strict=True):
        assert torch.equal(result["loss"], full["loss"])
        for name in "itsb":
            assert (result[name] is None) if name in frozen else torch.equal(result[name], full[name])


@every_world
@every_loss
def test_processes_may_want_different_gradients(loss_worlds: Worlds, world: int, kind: str, scheme: str) -> None:
    exact = found(loss_worlds, world, f"{kind} {scheme} exact")
    for case, frozen_on in (
        ("texts frozen on one", {0: "t"}),
        ("all frozen on one", {world - 1: "itsb"}),
        ("all frozen but on one", dict.fromkeys(range(world - 1), "itsb")),
    ):
        for rank, result in enumerate(found(loss_worlds, world, f"{kind} {scheme} {case}")):
            for name in "itsb":
                if name in frozen_on.get(rank, ""):
                    assert result[name] is None
                else:
                    assert torch.equal(result[name], exact[rank][name]), (case, rank, name)
    assert not any(value.requires_grad for value in found(loss_worlds, world, f"{kind} {scheme} no_grad"))
    for value, result in zip(found(loss_worlds, world, f"{kind} {scheme} no_grad"), exact, strict=True):
        torch.testing.assert_close(value, result["loss"], atol=1e-14, rtol=1e-14)


@every_world
@every_loss
def test_going_backward_needs_no_other_process(loss_worlds: Worlds, world: int, kind: str, scheme: str) -> None:
    exact = found(loss_worlds, world, f"{kind} {scheme} exact")
    for result, full in zip(found(loss_worlds, world, f"{kind} {scheme} one behind"), exact, strict=True):
        assert torch.equal(result[0], full["i"])
        assert not torch.equal(result[1], full["i"])


def alone(kind: str, world: int, frozen: str = "", seeds: tuple[int, ...] = (0,)) -> dict[str, Tensor]:
    """The gradients of the model's parameters in one process with the whole batches."""
    model = cases.TwoTowers(frozen)
    for seed in seeds:
        (by_matrix(kind, *model(*cases.batch(PAIRS * world, seed=seed))) / len(seeds)).backward()
    gradients: dict[str, Tensor] = cases.parameter_gradients(model)
    return gradients


@every_world
@every_loss
@pytest.mark.parametrize("frozen", ["", "image", "text", "scale bias", "accumulated"])
def test_a_model_under_ddp_has_the_gradients_of_one_process(
    loss_worlds: Worlds, world: int, kind: str, scheme: str, frozen: str
) -> None:
    two = frozen == "accumulated"
    truth = alone(kind, world, seeds=(0, 1)) if two else alone(kind, world, frozen)
    for result in found(loss_worlds, world, f"{kind} {scheme} {'accumulated' if two else f'model {frozen}'}"):
        assert set(truth) <= set(result)
        for name, gradient in result.items():
            # CLIP's loss does not depend on the bias; DDP wants its parameter to have a gradient, and it is 0.
            expected = truth.get(name, torch.zeros_like(gradient))
            torch.testing.assert_close(gradient, expected, atol=1e-12, rtol=1e-12, msg=name)


@pytest.mark.parametrize("world", [3, 4])
@every_loss
def test_groups_side_by_side_are_batches_of_their_own(loss_worlds: Worlds, world: int, kind: str, scheme: str) -> None:
    for start in (0, 1):
        members = list(range(start, world, 2))
        results = [loss_worlds[world, rank][f"group {kind} {scheme}"] for rank in members]
        check(results, whole(kind, *cases.batch(PAIRS * len(members), seed=start)))
    for text in found(loss_worlds, world, "outside"):
        assert text.startswith("ConfigError: Process ")
        assert "no member" in text


@several
@every_loss
def test_unequal_batches_are_refused_by_all(loss_worlds: Worlds, world: int, kind: str, scheme: str) -> None:
    others = "rank 0" if world == 2 else "ranks " + ", ".join(map(str, range(world - 1)))
    for text in found(loss_worlds, world, f"uneven {kind} {scheme}"):
        assert text.startswith(f"ConfigError: {kind}_loss over {world} processes")
        assert f"({others}: {PAIRS} pairs; rank {world - 1}: {PAIRS - 1} pairs)" in text


@several
def test_what_does_not_fit_on_one_process_is_refused_by_all(loss_worlds: Worlds, world: int) -> None:
    def told(case: str, at: int, there: str, elsewhere: str) -> None:
        for rank, text in enumerate(found(loss_worlds, world, case)):
            assert text.startswith("ConfigError: ")
            assert (there if rank == at else elsewhere) in text, (case, rank, text)

    told("unpaired", 0, "two of one shape", "failed on rank 0")
    told("no scalar", world - 1, "logit_scale of shape (2,)", f"failed on rank {world - 1}")
    told("dtypes", 0, "rank 0: images of float32", "rank 0: images of float32")
    told("kinds", 0, "rank 0: siglip_loss", "rank 0: siglip_loss")
    told("schemes", 0, "rank 0: by ring", "rank 0: by ring")
    last, others = world - 1, "rank 0" if world == 2 else "ranks " + ", ".join(map(str, range(world - 1)))
    for kind in ("float", "tensor"):
        told(f"scales {kind}", 0, *[f"logit_scale (rank 0: 10; rank {last}: 11)"] * 2)
        told(f"biases {kind}", 0, *[f"logit_bias (rank 0: -10; rank {last}: -9)"] * 2)
    told("a bias less", 0, *[f"({others}: a bias; rank {last}: no bias)"] * 2)
    for case in ("last bits", "not numbers"):
        assert {*found(loss_worlds, world, case)} == {"nothing was raised"}
    told("integers", 0, "torch.int64", "torch.int64")
    told("second derivative", 0, "differentiated once more", "differentiated once more")
    check(found(loss_worlds, world, "after refusals"), whole("clip", *(s.repeat(world, 1) for s in cases.batch(PAIRS))))


def test_a_process_that_does_not_come_is_waited_for_no_longer_than_the_timeout(loss_worlds: Worlds) -> None:
    seconds, text = str(loss_worlds["absent"]).split(maxsplit=1)
    assert float(seconds) < 30  # the group's is 3
    assert text.startswith("RuntimeError: ")
    assert "imed out" in text


@several
@every_loss
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_each_scheme_sends_and_holds_what_it_says(
    loss_worlds: Worlds, world: int, kind: str, scheme: str, dtype: str
) -> None:
    pairs, width = 16, 256
    size = {"float32": 4, "bfloat16": 2}[dtype]
    # In units of the features of one process, per other process: texts, then their gradients in float32.
    texts = 2 if (kind, scheme) == ("clip", "ring") else 1
    features = (world - 1) * pairs * width * (texts * size + 4)
    for counted in found(loss_worlds, world, f"count {kind} {scheme} {dtype}"):
        sent = sum(value for name, value in counted["bytes"].items() if name != "torch.int64")
        small = sent - features  # cosines, statistics and losses (float64): numbers per pair
        assert small == (0 if kind == "siglip" else (world - 1) * pairs * (4 * (4 if scheme == "ring" else 3) + 8))
        assert counted["bytes"]["torch.int64"] == (world - 1) * len(_Card._fields) * 8
        if kind == "siglip":
            assert counted["units"] == 3
        else:  # the cosines of the pairs alone may be read off products, of b pairs with b at the most
            assert 4 <= counted["units"] <= 4 + 1 / world
        assert counted["largest"] == (world if scheme == "gather" else 1)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_without_processes_it_is_the_loss_of_clip_core(kind: str) -> None:
    function: dict[str, Callable[..., Tensor]] = {"clip": clip_loss, "siglip": siglip_loss}
    images, texts = cases.batch(6)
    expected = getattr(kernels, f"{kind}_loss")(images, texts, torch.tensor(SCALE), torch.tensor(BIAS))
    for scheme in ("gather", "ring"):
        assert torch.equal(ContrastiveLoss(kind, scheme)(images, texts, SCALE, BIAS), expected)
        assert torch.equal(function[kind](images, texts, SCALE, BIAS, scheme=scheme), expected)


def test_a_choice_that_does_not_exist_is_named() -> None:
    with pytest.raises(ConfigError, match="kind is 'siglipp'; allowed: 'clip' or 'siglip'"):
        ContrastiveLoss("siglipp")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="scheme is 'rings'; allowed: 'gather' or 'ring'"):
        ContrastiveLoss(scheme="rings")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="scheme is 'shift'"):
        clip_loss(*cases.batch(2), SCALE, scheme="shift")  # type: ignore[arg-type]


def test_every_process_of_a_group_gets_a_message_of_bounded_length() -> None:
    cards = [_Card(pairs=3 if rank % 2 else 4) for rank in range(100)]
    text = _difference("clip_loss", cards)
    assert "ranks 0, 2, 4, 6, 8, 10, 12, 14 and 42 more: 4 pairs" in text
    assert len(text) < 500
