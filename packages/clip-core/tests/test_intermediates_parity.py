"""`Clip.forward_intermediates` against open_clip's, by its own keywords (towers.outputs)."""

from __future__ import annotations

import open_clip
import pytest
import torch

import clip_core
from clip_core.errors import ConfigError
from clip_core.towers.outputs import as_layers, split_tokens

pytestmark = pytest.mark.parity

NAME = "ViT-S-32-alt"


@pytest.fixture(scope="module")
def pair() -> tuple[clip_core.Clip, torch.nn.Module]:
    torch.manual_seed(0)
    peer = open_clip.create_model(NAME).eval()
    ours = clip_core.create_model(NAME)
    ours.load_state_dict(peer.state_dict())
    return ours, peer


@pytest.fixture(scope="module")
def inputs() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {"image": torch.randn(2, 3, 224, 224), "text": open_clip.tokenize(["a cat", "two dogs on a sofa"])}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"image_indices": 2, "text_indices": 3},
        {"image_indices": [0, 5], "text_indices": [1], "intermediates_only": True},
        {"image_indices": [3], "image_output_fmt": "NLC", "image_output_extra_tokens": True, "normalize": False},
        {"image_indices": 1, "text_indices": 1, "output_logits": True, "output_logit_scale_bias": True},
    ],
)
@torch.no_grad()
def test_outputs_equal_open_clip(pair, inputs: dict[str, torch.Tensor], options: dict[str, object]) -> None:
    ours, peer = (model.forward_intermediates(**inputs, **options) for model in pair)
    assert ours.keys() == peer.keys()
    for key, expected in peer.items():
        torch.testing.assert_close(ours[key], expected, atol=1e-4, rtol=1e-4, msg=key)


@torch.no_grad()
def test_either_input_may_be_left_out(pair, inputs: dict[str, torch.Tensor]) -> None:
    model, _ = pair
    assert model.forward_intermediates(image=inputs["image"]).keys() == {"image_features", "image_intermediates"}
    assert model.forward_intermediates(text=inputs["text"]).keys() == {"text_features", "text_intermediates"}
    both = model(**inputs)
    for name in inputs:
        output = model(**{name: inputs[name]})
        features = output._asdict()
        torch.testing.assert_close(features[f"{name}_features"], both._asdict()[f"{name}_features"])
        assert features[f"{'text' if name == 'image' else 'image'}_features"] is None


def test_what_cannot_be_given_is_refused(pair, inputs: dict[str, torch.Tensor]) -> None:
    model, _ = pair
    for options, message in (
        ({"image": inputs["image"], "output_logits": True}, "output_logits is True without both inputs"),
        ({"image": inputs["image"], "image_output_fmt": "NHWC"}, "image_output_fmt is 'NHWC'; allowed: NCHW, NLC"),
        ({"text": inputs["text"], "text_indices": [40]}, "40"),
        ({"text": inputs["text"], "text_indices": 0}, "number of last blocks is 0; allowed: 1 or more"),
    ):
        with pytest.raises(ConfigError, match=message):
            model.forward_intermediates(**options)


def test_maps_of_convolutions_become_rows_in_reading_order(pair) -> None:
    maps = torch.arange(2 * 3 * 4 * 5.0).view(2, 3, 4, 5)
    rows, before = split_tokens(pair[0].visual, maps, "NLC")
    assert torch.equal(rows[1, 7], maps[1, :, 1, 2])
    assert before.shape == (2, 0, 3)
    assert as_layers(None) is None
    assert as_layers(2) == [-2, -1]
