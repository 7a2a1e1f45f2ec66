"""What needs a CUDA device: the same features there as on the CPU. Chosen with `-m gpu`."""

from __future__ import annotations

import pytest
import torch

import clip_core
from clip_core.kernels import clip_loss

pytestmark = pytest.mark.gpu

TEXTS = ["a photo of a cat", "two dogs", ""]


@pytest.mark.parametrize(("precision", "least_cosine"), [("fp32", 0.99999), ("bf16", 0.999), ("fp16", 0.9999)])
@torch.no_grad()
def test_features_on_the_device_are_those_of_the_cpu(precision: str, least_cosine: float) -> None:
    torch.manual_seed(0)
    cpu = clip_core.create("ViT-B-32")
    torch.manual_seed(0)
    cuda = clip_core.create("ViT-B-32", precision=precision, device="cuda")
    images, tokens = torch.randn(3, 3, 224, 224), cpu.tokenizer(TEXTS)
    for ours, theirs in zip(cuda.model(images.cuda(), tokens.cuda())[:2], cpu.model(images, tokens)[:2], strict=True):
        assert ours.is_cuda
        assert torch.nn.functional.cosine_similarity(ours.float().cpu(), theirs).min() > least_cosine


def test_the_loss_and_its_gradients_are_those_of_the_cpu() -> None:
    generator = torch.Generator().manual_seed(0)
    features = [torch.nn.functional.normalize(torch.randn(64, 32, generator=generator), dim=-1) for _ in range(2)]
    results = []
    for device in ("cpu", "cuda"):
        image, text = (side.to(device).requires_grad_() for side in features)
        scale = torch.tensor(30.0, device=device, requires_grad=True)
        loss = clip_loss(image, text, scale)
        loss.backward()
        results.append([value.detach().cpu() for value in (loss, image.grad, text.grad, scale.grad)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_a_bundle_loads_onto_the_device(tmp_path) -> None:
    bundle = clip_core.create("tiny", device="cuda")
    back = clip_core.load(clip_core.save(bundle, tmp_path / "b"), device="cuda")
    assert torch.equal(back.model.text_projection, bundle.model.text_projection)
