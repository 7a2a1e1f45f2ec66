"""clip_core.towers.undrawn: complete buffers, no values in parameters, and none of their memory."""

from __future__ import annotations

import timm
import torch
from torch import nn

from clip_core.towers.undrawn import parameters_to_meta, undrawn


class Tables(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        nn.init.constant_(self.layer.weight, 3.0)
        self.layer.weight.data.mul_(2.0).add_(5.0)
        self.shared = self.layer
        self.register_buffer("table", torch.empty(3).fill_(7.0).mul_(2))


def test_buffers_have_values_and_parameters_are_not_written() -> None:
    before = torch.get_rng_state()
    with undrawn():
        made = Tables()
        torch.rand(3)
        written = made.layer.weight.clone()
    assert torch.equal(torch.get_rng_state(), before)
    assert not (written == 11).any()
    assert made.table.tolist() == [14.0] * 3
    assert (Tables().layer.weight == 11).all()
    parameters_to_meta(made)
    assert made.layer.weight.is_meta
    assert made.shared.weight is made.layer.weight
    assert not made.table.is_meta


def test_a_model_of_timm_has_the_buffers_that_it_draws_itself() -> None:
    options = {"embed_dim": 64, "depth": 2, "num_heads": 2}
    with undrawn():
        made = timm.create_model("eva02_base_patch16_clip_224", **options)
    expected = dict(timm.create_model("eva02_base_patch16_clip_224", **options).named_buffers())
    assert expected
    for name, buffer in made.named_buffers():
        assert torch.equal(buffer, expected[name]), name
