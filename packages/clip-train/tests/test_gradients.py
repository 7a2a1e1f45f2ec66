"""Accumulation gives the gradient of the whole batch, whatever the model draws and whichever losses there are."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import clip_core
from clip_core.building import build
from clip_train.data.decode import Batch
from clip_train.gradients import backward
from clip_train.loss import ContrastiveLoss
from clip_train.objective import Contrastive, Features


def make_batch(count: int) -> Batch:
    tokens, lengths = clip_core.get_tokenizer("tiny").tokenize([f"the number {n} and {n * n}" for n in range(count)])
    images = torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(0)).double()
    return Batch(images, tokens, lengths, [], [])


def split(batch: Batch, parts: int) -> list[Batch]:
    size = len(batch.tokens) // parts
    return [
        Batch(*(value[start : start + size] for value in batch[:3]), [], [])
        for start in range(0, len(batch.tokens), size)
    ]


def make_model(**image: Any) -> nn.Module:
    torch.manual_seed(1)
    config = clip_core.get_config("tiny")
    config = dataclasses.replace(config, logit_bias=-3.0, image=dataclasses.replace(config.image, **image))
    return build(config).double().train()


def gradients(model: nn.Module, objective: Any, batches: list[Batch]) -> dict[str, Tensor]:
    model.zero_grad()
    backward(model, objective, batches, context=contextlib.nullcontext, seed=lambda number: torch.manual_seed(number))
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


class WithSingles(Contrastive):
    """A loss of single samples beside the contrastive one, and a tensor that only the joint loss sees."""

    def cached(self, batch: Batch) -> dict[str, Tensor]:
        return {"weight": batch.images.mean(dim=(1, 2, 3))}

    def joint(self, features: Features, extra: dict[str, Tensor]) -> dict[str, Tensor]:
        return {**super().joint(features, extra), "weighted": (features.images[:, 0] * extra["weight"]).sum()}

    def own(self, output: Any, batch: Batch) -> dict[str, Tensor]:
        return {"single": (output.image_features[:, 0] * output.text_features[:, 1]).mean()}


@pytest.mark.parametrize("kind", ["clip", "siglip"])
@pytest.mark.parametrize("parts", [2, 4])
def test_micro_batches_give_the_gradient_of_the_whole_batch(kind: Any, parts: int) -> None:
    model, batch, objective = make_model(), make_batch(8), WithSingles(ContrastiveLoss(kind))
    whole = gradients(model, objective, [batch])
    found = gradients(model, objective, split(batch, parts))
    assert whole.keys() == found.keys()
    for name, value in whole.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-12, msg=name)


def test_both_passes_of_a_micro_batch_draw_the_same() -> None:
    """With patch dropout the features of the second pass are those whose gradient was taken, or it would be wrong."""
    model, batches = make_model(patch_dropout=0.5), split(make_batch(8), 2)
    objective = Contrastive(ContrastiveLoss())
    found = gradients(model, objective, batches)
    model.zero_grad()
    outputs = []
    for number, batch in enumerate(batches):
        torch.manual_seed(number)
        outputs.append(Features.of(model(batch.images, batch.tokens, batch.lengths.tolist())))
    loss = ContrastiveLoss()(
        torch.cat([o.images for o in outputs]), torch.cat([o.texts for o in outputs]), outputs[0].scale
    )
    loss.backward()
    for name, value in model.named_parameters():
        if value.grad is not None:
            torch.testing.assert_close(found[name], value.grad, rtol=1e-9, atol=1e-12, msg=name)


def test_batch_norms_count_every_picture_once() -> None:
    class Tower(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(3)
            self.scale = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))

        def forward(self, images: Tensor, tokens: Tensor, lengths: Any) -> Any:
            features = self.norm(images).flatten(1)[:, :16]
            return clip_core.model.ClipOutput(features, tokens[:, :16].double(), self.scale, None)

    model, batches = Tower().double().train(), split(make_batch(8), 2)
    gradients(model, Contrastive(ContrastiveLoss()), batches)
    assert int(model.norm.num_batches_tracked) == 2


def test_the_losses_are_those_of_the_whole_batch() -> None:
    model, batch, objective = make_model(), make_batch(8), WithSingles(ContrastiveLoss())
    arguments: dict[str, Any] = {"context": contextlib.nullcontext, "seed": torch.manual_seed}
    whole = backward(model, objective, [batch], **arguments)
    found = backward(model, objective, split(batch, 4), **arguments)
    assert list(whole) == list(found) == ["contrastive", "weighted", "single"]
    for name, value in whole.items():
        torch.testing.assert_close(found[name], value, msg=name)
