"""The contrastive loss against float64 arithmetic and open_clip's."""

from __future__ import annotations

import open_clip
import pytest
import torch
import torch.nn.functional as F

from clip_core.errors import ConfigError
from clip_core.kernels import clip_loss

pytestmark = pytest.mark.parity


def features(batch: int, dim: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(
        F.normalize(torch.randn(batch, dim, generator=generator, dtype=torch.float64), dim=-1).to(dtype)
        for _ in range(2)
    )


@pytest.mark.parametrize("batch", [1, 2, 37])
@pytest.mark.parametrize("scale", [1.0, 14.3, 100.0])
def test_loss_and_gradients_equal_float64_and_open_clip(batch: int, scale: float) -> None:
    results = {}
    for name, dtype in (("double", torch.float64), ("ours", torch.float32), ("peer", torch.float32)):
        image, text = (side.requires_grad_() for side in features(batch, 16, dtype))
        temperature = torch.tensor(scale, dtype=dtype, requires_grad=True)
        if name == "double":
            cosine = temperature * image @ text.T
            loss = -(cosine.log_softmax(1).diagonal() + cosine.log_softmax(0).diagonal()).mean() / 2
        elif name == "ours":
            loss = clip_loss(image, text, temperature)
        else:
            loss = open_clip.ClipLoss()(image, text, temperature)
        loss.backward()
        results[name] = [value.detach().double() for value in (loss, image.grad, text.grad, temperature.grad)]
    for ours, peer, double in zip(results["ours"], results["peer"], results["double"], strict=True):
        torch.testing.assert_close(ours, double, atol=2e-5, rtol=1e-5)
        torch.testing.assert_close(ours, peer, atol=1e-6, rtol=1e-5)


def test_the_bias_cancels() -> None:
    image, text = features(5, 8)
    scale = torch.tensor(10.0)
    torch.testing.assert_close(clip_loss(image, text, scale, torch.tensor(-7.0)), clip_loss(image, text, scale))


@pytest.mark.parametrize("shapes", [((3, 4), (2, 4)), ((3, 4), (3, 5)), ((0, 4), (0, 4)), ((4,), (4,))])
def test_sides_that_do_not_pair_are_refused(shapes) -> None:
    with pytest.raises(ConfigError, match="allowed: two of one shape"):
        clip_loss(torch.zeros(shapes[0]), torch.zeros(shapes[1]), torch.tensor(1.0))


def test_autocast_does_not_blur_the_logits() -> None:
    image, text = (side.requires_grad_() for side in features(64, 16))
    scale = torch.tensor(100.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = clip_loss(image, text, scale)
    assert mixed.dtype == torch.float32
    assert torch.equal(mixed, clip_loss(image, text, scale))
    low = clip_loss(image.bfloat16(), text.bfloat16(), scale)
    assert low.dtype == torch.float32
    assert torch.equal(low, clip_loss(image.bfloat16().float(), text.bfloat16().float(), scale))
