"""Both towers under torch.compile without a graph break and under torch.export with a free batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import clip_core


class Half(nn.Module):
    """One side of a model, as what exporters take: a module with one argument."""

    def __init__(self, model: clip_core.Clip, kind: str) -> None:
        super().__init__()
        self.model, self.kind = model, kind

    def forward(self, inputs: Tensor) -> Tensor:
        return self.model.encode_image(inputs) if self.kind == "image" else self.model.encode_text(inputs)


@pytest.fixture
def inputs(tiny: clip_core.Bundle) -> dict[str, Tensor]:
    texts = ["a cat", "two dogs", "", "a " * 60, "the end"]
    return {"image": torch.randn(5, 3, 32, 32), "text": tiny.tokenizer(texts)}


@pytest.mark.parametrize("kind", ["image", "text"])
def test_compiled_without_a_graph_break(tiny: clip_core.Bundle, inputs: dict[str, Tensor], kind: str) -> None:
    half = Half(tiny.model, kind)
    # The traces and the gradients are the same with the default backend, which takes minutes of a C++ compiler.
    compiled = torch.compile(half, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(inputs[kind]), half(inputs[kind]), atol=1e-5, rtol=0)
    gradients = []
    for module in (half, compiled):
        tiny.model.zero_grad()
        module(inputs[kind]).square().mean().backward()
        gradients.append({name: value.grad for name, value in tiny.model.named_parameters() if value.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.slow
@pytest.mark.aot
@pytest.mark.parametrize("kind", ["image", "text"])
@torch.no_grad()
def test_compiled_by_the_default_backend(tiny: clip_core.Bundle, inputs: dict[str, Tensor], kind: str) -> None:
    half = Half(tiny.model, kind)
    compiled = torch.compile(half, fullgraph=True)
    torch.testing.assert_close(compiled(inputs[kind]), half(inputs[kind]), atol=1e-5, rtol=0)


@pytest.mark.skipif(torch.__version__.startswith("2.6."), reason="torch 2.6 takes a free batch for a constant")
@pytest.mark.parametrize("kind", ["image", "text"])
@torch.no_grad()
def test_exported_with_a_free_batch(tiny: clip_core.Bundle, inputs: dict[str, Tensor], kind: str) -> None:
    half = Half(tiny.model, kind)
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(half, (inputs[kind][:2],), dynamic_shapes=({0: batch},))
    for count in (1, 2, 5):
        found = program.module()(inputs[kind][:count])
        torch.testing.assert_close(found, half(inputs[kind][:count]), atol=1e-5, rtol=0)
