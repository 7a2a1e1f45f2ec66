"""The model against open_clip 3.3.0 on the same weights, and what its methods promise.

These also cover the parts it is built of: clip_core.towers and clip_core.layers.
"""

from __future__ import annotations

import open_clip
import PIL.Image
import pytest
import torch

import clip_core
from clip_core.building import build
from clip_core.config import VitConfig
from clip_core.errors import ConfigError

pytestmark = pytest.mark.parity

CAPTIONS = ["a photo of a cat", "Two dogs, running &amp; playing on the beach!", "", "naïve café 🐶 " * 30]


@pytest.fixture(scope="module", params=["ViT-B-32", "ViT-B-32-quickgelu"])
def pair(request: pytest.FixtureRequest) -> tuple[clip_core.Clip, torch.nn.Module]:
    """Our model and the peer's, holding the same random weights."""
    torch.manual_seed(0)
    peer = open_clip.create_model(request.param).eval()
    ours = clip_core.create_model(request.param, device="meta")
    clip_core.weights.load_weights(ours, {k: v.clone() for k, v in peer.state_dict().items()}, "open_clip")
    return ours, peer


@torch.no_grad()
def test_features_equal_open_clip_from_the_same_image_and_strings(pair, photo: PIL.Image.Image) -> None:
    ours, peer = pair
    _, _, peer_transform = open_clip.create_model_and_transforms("ViT-S-32")
    transform = clip_core.build_transform(ours.config.preprocess)
    pictures = [photo, photo.rotate(90, expand=True), photo.convert("L"), photo.resize((90, 40))]
    ours_images = torch.stack([transform(picture) for picture in pictures])
    peer_images = torch.stack([peer_transform(picture) for picture in pictures])
    assert torch.equal(ours_images, peer_images)
    ours_tokens = clip_core.get_tokenizer("ViT-B-32")(CAPTIONS)
    peer_tokens = open_clip.get_tokenizer("ViT-B-32")(CAPTIONS)
    assert torch.equal(ours_tokens, peer_tokens)

    torch.testing.assert_close(ours.encode_image(ours_images), peer.encode_image(peer_images), atol=1e-5, rtol=0)
    torch.testing.assert_close(ours.encode_text(ours_tokens), peer.encode_text(peer_tokens), atol=1e-5, rtol=0)
    output, expected = ours(ours_images, ours_tokens), peer(peer_images, peer_tokens)
    for mine, theirs in zip(output[:3], expected[:3], strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=0)
    assert output.logit_bias is None
    for mine, theirs in zip(
        ours.get_logits(ours_images, ours_tokens), peer.get_logits(peer_images, peer_tokens), strict=True
    ):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=0)


def test_state_dict_loads_strictly_into_open_clip_and_back(pair) -> None:
    ours, peer = pair
    mine, theirs = ours.state_dict(), peer.state_dict()
    assert {k: (v.shape, v.dtype) for k, v in mine.items()} == {k: (v.shape, v.dtype) for k, v in theirs.items()}
    peer.load_state_dict(mine, strict=True)
    ours.load_state_dict(theirs, strict=True)


def test_gradients_equal_open_clip(photo: PIL.Image.Image) -> None:
    torch.manual_seed(0)
    peer = open_clip.create_model("ViT-S-32-alt", force_image_size=64)
    ours = clip_core.create_model("ViT-S-32-alt", device="meta")
    small = dict(peer.state_dict())
    config = ours.config
    config = clip_core.ClipConfig.from_json(
        {
            **config.to_json(),
            "image": {**config.image.to_json(), "image_size": 64},
            "preprocess": {**config.preprocess.to_json(), "size": 64},
        }
    )
    ours = build(config)
    ours.load_state_dict(small)
    images, tokens = torch.randn(4, 3, 64, 64), open_clip.tokenize(CAPTIONS)
    for model in (ours, peer):
        output = model(images, tokens)
        loss = (output[2] * output[0] @ output[1].T).log_softmax(-1).diagonal().mean()
        loss.backward()
    theirs = dict(peer.named_parameters())
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, theirs[name].grad, atol=1e-5, rtol=1e-4, msg=name)


PLAIN = [
    name
    for name in clip_core.list_models()
    if isinstance((config := clip_core.get_config(name)).image, VitConfig)
    and config.layout == "flat"
    and name != "tiny"
]


# The peer is built with every layer on the meta device, so even the giants cost nothing.
@pytest.mark.parametrize("name", PLAIN)
def test_every_architecture_has_the_keys_shapes_heads_and_activation_of_open_clip(name: str) -> None:
    with torch.device("meta"):
        peer = open_clip.model.CLIP(**_peer_arguments(name))
    ours = clip_core.create_model(name, device="meta")
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in peer.state_dict().items()}
    block, theirs = ours.visual.transformer.resblocks[0], peer.visual.transformer.resblocks[0]
    assert block.attn.heads == theirs.attn.num_heads
    assert type(block.mlp.gelu).__name__.lower() == type(theirs.mlp.gelu).__name__.lower()
    assert ours.transformer.resblocks[0].attn.heads == peer.transformer.resblocks[0].attn.num_heads


def _peer_arguments(name: str) -> dict[str, object]:
    arguments = open_clip.get_model_config(name)
    arguments.pop("custom_text", None)
    return arguments


def test_fresh_weights_are_drawn_from_the_distributions_of_open_clip() -> None:
    torch.manual_seed(0)
    ours = clip_core.create_model("ViT-S-32").state_dict()
    peer = open_clip.create_model("ViT-S-32").state_dict()
    for key, value in peer.items():
        if value.numel() >= 10_000:
            torch.testing.assert_close(ours[key].std(), value.std(), rtol=0.05, atol=0, msg=key)
            torch.testing.assert_close(ours[key].mean(), value.mean(), rtol=0, atol=0.05 * value.std().item(), msg=key)
        elif value.numel() > 1 and value.std() == 0:
            assert torch.equal(ours[key], value), key
    assert torch.equal(ours["logit_scale"], peer["logit_scale"])


def test_fresh_weights_follow_the_seed() -> None:
    models = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        models.append(clip_core.create_model("tiny").state_dict())
    assert all(torch.equal(models[0][key], models[1][key]) for key in models[0])
    assert not torch.equal(models[0]["text_projection"], models[2]["text_projection"])


@torch.no_grad()
def test_normalize_gives_rows_of_length_one_in_the_same_direction(tiny: clip_core.Bundle) -> None:
    images, tokens = torch.randn(3, 3, 32, 32), tiny.tokenizer(CAPTIONS[:3])
    for encode, inputs in ((tiny.model.encode_image, images), (tiny.model.encode_text, tokens)):
        plain, unit = encode(inputs), encode(inputs, normalize=True)
        torch.testing.assert_close(unit.norm(dim=-1), torch.ones(3))
        torch.testing.assert_close(unit * plain.norm(dim=-1, keepdim=True), plain)


@torch.no_grad()
def test_tokens_after_end_of_text_do_not_matter(tiny: clip_core.Bundle) -> None:
    tokens = tiny.tokenizer(["a photo of a cat"])
    end = int(tokens.argmax())
    trimmed = tiny.model.encode_text(tokens[:, : end + 1])
    torch.testing.assert_close(tiny.model.encode_text(tokens), trimmed, atol=1e-5, rtol=0)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_weights_give_nearly_the_same_features(precision: str, tiny: clip_core.Bundle) -> None:
    torch.manual_seed(0)
    low = clip_core.create_model("tiny", precision=precision)
    assert low.dtype == low.visual.proj.dtype != torch.float32
    assert low.logit_scale.dtype == torch.float32
    images, tokens = torch.randn(3, 3, 32, 32), tiny.tokenizer(CAPTIONS[:3])
    with torch.no_grad():
        for theirs, ours in zip(tiny.model(images, tokens)[:2], low(images, tokens)[:2], strict=True):
            assert torch.nn.functional.cosine_similarity(theirs, ours.float()).min() > 0.999


@torch.no_grad()
def test_no_images_and_no_texts_give_no_features(tiny: clip_core.Bundle) -> None:
    assert tiny.model.encode_image(torch.zeros(0, 3, 32, 32)).shape == (0, 128)
    assert tiny.model.encode_text(tiny.tokenizer([])).shape == (0, 128)


@pytest.mark.parametrize(
    ("method", "value", "message"),
    [
        ("encode_image", "cat.jpg", "encode_image got str; allowed: a tensor"),
        ("encode_text", ["a cat"], "encode_text got list; allowed: a tensor of token ids"),
        ("encode_image", torch.zeros(3, 32, 32), r"shape \(3, 32, 32\); allowed: \(batch, 3, 32, 32\)"),
        ("encode_image", torch.zeros(1, 3, 64, 64), r"\(1, 3, 64, 64\)"),
        ("encode_image", torch.zeros(1, 3, 32, 32, dtype=torch.uint8), "uint8"),
        ("encode_text", torch.zeros(1, 33, dtype=torch.long), r"\(1, 33\); allowed: \(batch, up to 32\)"),
        ("encode_text", torch.zeros(1, 0, dtype=torch.long), r"\(1, 0\)"),
        ("encode_text", torch.zeros(1, 8), "float32"),
        (
            "encode_text",
            torch.zeros(1, 8, dtype=torch.uint8),
            "uint8; allowed: token ids as torch.int64 or torch.int32",
        ),
        ("encode_image", torch.zeros(1, 3, 32, 32, device="meta"), "images on meta, and the model is on cpu; move one"),
    ],
)
def test_wrong_inputs_are_refused(tiny: clip_core.Bundle, method: str, value: torch.Tensor, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        getattr(tiny.model, method)(value)


def test_a_call_without_any_input_is_refused(tiny: clip_core.Bundle) -> None:
    for call in (tiny.model, tiny.model.forward_intermediates):
        with pytest.raises(ConfigError, match="neither an image nor a text; allowed: image, text or both"):
            call()
