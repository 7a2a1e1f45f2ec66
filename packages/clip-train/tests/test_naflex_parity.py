"""Batches of patches against timm, whose functions open_clip's main takes for --use-naflex (3.3.0 has none of it)."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import PIL.Image
import pytest
import torch
from timm.data import create_transform
from timm.data.naflex_dataset import NaFlexCollator, calculate_naflex_batch_size
from timm.data.naflex_transforms import Patchify

from clip_core.augment import AugmentConfig, seed_augmentation
from clip_train import TrainConfig
from clip_train.config import FlexConfig
from clip_train.data.decode import Batch
from clip_train.data.loader import StepDataset
from clip_train.keyed import AUGMENT, mix
from clip_train.plan import prepare

pytestmark = pytest.mark.parity

LENGTHS = (49, 128, 196, 256, 576, 784, 1024, 4096)


@pytest.mark.parametrize("budget", [1, 100, 4096, 16384, 50_000])
@pytest.mark.parametrize("divisor", [1, 3, 8])
def test_batches_have_as_many_samples_as_the_peers(budget: int, divisor: int) -> None:
    given = FlexConfig(
        use_naflex=True,
        naflex_seq_lens=LENGTHS,
        naflex_max_tokens_per_batch=budget,
        naflex_batch_divisor=divisor,
    )
    expected = [calculate_naflex_batch_size(budget, length, divisor=divisor) for length in LENGTHS]
    assert list(given.batch_sizes) == expected


def test_a_batch_is_that_of_the_peers_transform_and_collator(
    make_config: Callable[..., TrainConfig], make: Any
) -> None:
    augment = AugmentConfig(use_timm=True, scale=(0.3, 1.0), hflip=0.5, color_jitter=0.3)
    plan = prepare(
        make_config(
            use_naflex=True,
            naflex_seq_lens=(9, 20),
            naflex_max_tokens_per_batch=90,
            naflex_batch_divisor=2,
            aug_cfg=augment,
        )
    )
    preprocess, order = plan.bundle.config.preprocess, plan.decoder.order
    data = StepDataset(plan.decoder, plan.share)
    for number in range(4):
        form, batch = plan.share.form(number), data[number]
        assert form is not None
        assert isinstance(batch, Batch)
        peer = create_transform(
            input_size=(3, 224, 224),
            is_training=True,
            naflex=True,
            max_seq_len=form.length,
            patch_size=form.patch_size,
            scale=augment.scale,
            ratio=augment.ratio,
            hflip=augment.hflip,
            color_jitter=augment.color_jitter,
            auto_augment=None,
            interpolation=preprocess.interpolation,
            mean=preprocess.mean,
            std=preprocess.std,
        )
        rows = []
        for slot in plan.share.slots(number):
            epoch, position = divmod(slot, order.count)
            sample = order.sample(epoch, position)
            seed_augmentation(mix(AUGMENT, order.seed, epoch, sample) >> 1)
            picture = PIL.Image.open(io.BytesIO(make.png(sample))).convert("RGB")
            rows.append((Patchify(form.patch_size)(peer(picture)), 0))
        expected, _ = NaFlexCollator(form.length)(rows)
        found = plan.ready(batch).images
        for name in ("patches", "patch_coord", "patch_valid"):
            assert torch.equal(found[name], expected[name]), name
