from __future__ import annotations

import torch

from clip_train.precision import autocast

CPU = torch.device("cpu")


def test_autocast_is_what_it_is_called() -> None:
    a = torch.ones(2, 2)
    with autocast("fp32", CPU):
        assert (a @ a).dtype == torch.float32
    with autocast("amp_bf16", CPU):
        assert (a @ a).dtype == torch.bfloat16
