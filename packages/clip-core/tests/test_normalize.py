from __future__ import annotations

import pickle

import numpy as np
import PIL.Image
import pytest
import torch
from torchvision import transforms

import clip_core
from clip_core.normalize import Normalize


def every_level() -> PIL.Image.Image:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    return PIL.Image.fromarray(np.stack([levels, levels[::-1], levels.T], axis=-1))


@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-B-16-SigLIP", "EVA02-B-16", "convnext_base_w"])
def test_every_level_becomes_the_number_that_torchvision_gives(name: str) -> None:
    config = clip_core.get_config(name).preprocess
    picture = every_level()
    expected = transforms.Normalize(config.mean, config.std)(transforms.ToTensor()(picture))
    normalize = pickle.loads(pickle.dumps(Normalize(config.mean, config.std)))
    pixels = transforms.PILToTensor()(picture)
    assert torch.equal(normalize(pixels), expected)
    assert torch.equal(normalize(torch.stack([pixels, pixels])), torch.stack([expected, expected]))
    assert normalize(expected) is expected
    assert normalize(pixels[None].contiguous(memory_format=torch.channels_last)).is_contiguous()
