"""What needs a CUDA device: the same features there as on the CPU. Chosen with `-m gpu`."""

from __future__ import annotations

import pytest
import torch

import clip_core
from clip_core.kernels import clip_loss, siglip_loss

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


FAMILIES = [
    "RN50",
    "convnext_tiny",
    "EVA02-B-16",
    "ViTamin-S",
    "MobileCLIP-S1",
    "PE-Core-T-16-384",
    "ViT-B-16-SigLIP2",
    "coca_ViT-B-32",
    "roberta-ViT-B-32",
    "moderntext-ViT-B-32-256",
    "naflex_ViT-B-32",
]


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_every_family_gives_the_features_of_the_cpu(name: str) -> None:
    torch.manual_seed(0)
    cpu = clip_core.create_model(name)
    cuda = clip_core.create_model(name, device="cuda")
    cuda.load_state_dict(cpu.state_dict())
    images = torch.randn(2, 3, *cpu.visual.image_size)
    tokens = torch.randint(4, cpu.vocab_size - 8, (2, cpu.context_length))
    tokens[:, -1] = getattr(cpu.config.text, "eos_id", None) or cpu.vocab_size - 1
    for ours, theirs in zip(cuda(images.cuda(), tokens.cuda())[:2], cpu(images, tokens)[:2], strict=True):
        assert ours.is_cuda
        assert torch.nn.functional.cosine_similarity(ours.cpu(), theirs).min() > 0.9999


@torch.no_grad()
def test_ids_may_stay_on_the_host_and_are_the_short_way_there() -> None:
    bundle = clip_core.create("ViT-B-32", device="cuda")
    tokens = bundle.tokenizer([f"a photo of a {name}" for name in ("cat", "dog", "small red car")])
    features = bundle.model.encode_text(tokens, normalize=True)
    assert features.is_cuda
    torch.testing.assert_close(features, bundle.model.encode_text(tokens.cuda(), normalize=True), atol=2e-4, rtol=0)


@torch.no_grad()
def test_captions_are_those_of_the_cpu() -> None:
    torch.manual_seed(0)
    cpu = clip_core.create_model("coca_ViT-B-32")
    cuda = clip_core.create_model("coca_ViT-B-32", device="cuda")
    cuda.load_state_dict(cpu.state_dict())
    images = torch.randn(2, 3, 224, 224)
    for method in ("greedy", "beam"):
        found = cuda.generate(images.cuda(), method=method, max_length=8)
        assert found.is_cuda
        assert torch.equal(found.cpu(), cpu.generate(images, method=method, max_length=8))


@pytest.mark.parametrize("function", [clip_loss, siglip_loss])
def test_a_loss_and_its_gradients_are_those_of_the_cpu(function) -> None:
    generator = torch.Generator().manual_seed(0)
    features = [torch.nn.functional.normalize(torch.randn(9000, 32, generator=generator), dim=-1) for _ in range(2)]
    results = []
    for device in ("cpu", "cuda"):
        image, text = (side.to(device).requires_grad_() for side in features)
        scale = torch.tensor(30.0, device=device, requires_grad=True)
        loss = function(image, text, scale)
        loss.backward()
        results.append([value.detach().cpu() for value in (loss, image.grad, text.grad, scale.grad)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_a_bundle_loads_onto_the_device(tmp_path) -> None:
    bundle = clip_core.create("tiny", device="cuda")
    back = clip_core.load(clip_core.save(bundle, tmp_path / "b"), device="cuda")
    assert torch.equal(back.model.text_projection, bundle.model.text_projection)
