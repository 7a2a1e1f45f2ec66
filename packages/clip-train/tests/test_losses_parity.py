"""The losses over several processes against open_clip's own, through its own collectives, on the same features."""

from __future__ import annotations

from typing import Any

import pytest
import torch

pytestmark = pytest.mark.parity

Worlds = dict[Any, dict[str, Any]]
several = pytest.mark.parametrize("world", [2, 3, 4])


@several
@pytest.mark.parametrize("scheme", ["gather", "ring"])
def test_clip_is_open_clips_with_both_flags(loss_worlds: Worlds, world: int, scheme: str) -> None:
    for rank in range(world):
        ours, theirs = (loss_worlds[world, rank][case] for case in (f"clip {scheme} without bias", "peer clip"))
        for name in ("i", "t"):
            torch.testing.assert_close(ours[name], theirs[name], atol=1e-12, rtol=1e-12)
    # Their parts of the scale's gradient differ from process to process; what DDP averages does not.
    for name in ("loss", "s"):
        ours, theirs = (
            torch.stack([loss_worlds[world, rank][case][name] for rank in range(world)]).mean()
            for case in (f"clip {scheme} without bias", "peer clip")
        )
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-12)


@several
@pytest.mark.parametrize("scheme", ["gather", "ring"])
@pytest.mark.parametrize("way", ["bidir", "shift", "reduce", "gather"])
def test_siglip_is_open_clips_by_every_way(loss_worlds: Worlds, world: int, scheme: str, way: str) -> None:
    for rank in range(world):
        ours, theirs = (loss_worlds[world, rank][case] for case in (f"siglip {scheme} exact", f"peer siglip {way}"))
        for name in ("loss", "i", "t", "s", "b"):
            torch.testing.assert_close(ours[name], theirs[name], atol=1e-12, rtol=1e-12)


@several
def test_open_clips_default_flags_divide_the_gradient_by_the_number_of_processes(
    loss_worlds: Worlds, world: int
) -> None:
    here = loss_worlds[world, 0]
    exact = here["clip gather model "]
    for name, gradient in here["peer model both flags"].items():
        torch.testing.assert_close(gradient, exact[name], atol=1e-12, rtol=1e-12)
    for name, gradient in here["peer model no flag"].items():
        # The scale has no features to be cut off from.
        share = 1 if name in ("scale", "bias") else world
        torch.testing.assert_close(gradient * share, exact[name], atol=1e-12, rtol=1e-12)


@several
def test_open_clips_local_loss_alone_has_another_direction(loss_worlds: Worlds, world: int) -> None:
    here = loss_worlds[world, 0]
    exact, found = (
        torch.cat([value.flatten() for name, value in here[case].items() if name not in ("scale", "bias")])
        for case in ("clip gather model ", "peer model local_loss")
    )
    assert (found - exact).norm() / exact.norm() > 0.1
    assert torch.cosine_similarity(found, exact, dim=0) < 0.99


@several
def test_work_and_bytes_beside_open_clip(loss_worlds: Worlds, world: int) -> None:
    here = loss_worlds[world, 0]

    def bytes_of(name: str, dtype: str) -> int:
        return sum(here[f"count {name} {dtype}"]["bytes"].values())

    assert here["count open_clip float32"]["units"] == 6
    assert here["count clip gather float32"]["units"] <= 4 + 1 / world
    for dtype, share in (("bfloat16", 3 / 4), ("float32", 1 / 2)):
        # The numbers per pair and the agreement come on top, and weigh the less the wider the features are.
        assert share < bytes_of("clip gather", dtype) / bytes_of("open_clip", dtype) < share + 0.02
    assert here["count siglip gather float32"]["units"] == here["count open_clip siglip float32"]["units"] == 3
