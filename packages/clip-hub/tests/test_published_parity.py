"""Published weights from the real Hub: fetched, loaded, and the features of a fixed image and texts beside open_clip's.

For people who have the network, and some gigabytes: `nox -s parity -- network`.
"""

from __future__ import annotations

import warnings

import open_clip
import PIL.Image
import pytest
import torch

import clip_hub
from clip_hub.download import fetch

pytestmark = [pytest.mark.parity, pytest.mark.network]

# One of each kind: OpenAI's activation, LAION's, a sigmoid one that squashes images, timm towers, CoCa, a text tower
# of transformers, EVA's. The smallest of its kind.
CHOSEN = [
    "RN50-quickgelu:openai",
    "ViT-B-32-quickgelu:openai",
    "ViT-B-32:laion2b_s34b_b79k",
    "ViT-B-16-SigLIP:webli",
    "ViT-B-32-SigLIP2-256:webli",
    "convnext_base:laion400m_s13b_b51k",
    "MobileCLIP-S1:datacompdr",
    "EVA02-B-16:merged2b_s8b_b131k",
    "coca_ViT-B-32:laion2b_s13b_b90k",
    "roberta-ViT-B-32:laion2b_s12b_b32k",
]
TEXTS = ["a diagram", "a photo of a cat", "Zwei Hunde spielen am Strand"]


def picture() -> PIL.Image.Image:
    """The same on every machine: three gradients."""
    across, around = PIL.Image.linear_gradient("L"), PIL.Image.radial_gradient("L")
    return PIL.Image.merge("RGB", (across, around, across.rotate(90))).resize((400, 300))


@pytest.mark.parametrize("name", CHOSEN)
@torch.no_grad()
def test_published_weights_give_the_features_of_open_clip(name: str) -> None:
    bundle = clip_hub.load(name)
    model, tag = name.split(":")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the peer's and its libraries' own
        peer, _, transform = open_clip.create_model_and_transforms(model, pretrained=tag)
        tokenize = open_clip.get_tokenizer(model)
    peer.eval()
    image, tokens = bundle.preprocess(picture())[None], bundle.tokenizer(TEXTS)
    assert torch.equal(image[0], transform(picture()))
    assert torch.equal(tokens, tokenize(TEXTS))
    ours = bundle.model.encode_image(image), bundle.model.encode_text(tokens)
    theirs = peer.encode_image(image), peer.encode_text(tokens)
    for own, other in zip(ours, theirs, strict=True):
        similarity = torch.nn.functional.cosine_similarity(own, other, dim=-1)
        torch.testing.assert_close(similarity, torch.ones_like(similarity), atol=1e-5, rtol=0)
        torch.testing.assert_close(own, other, atol=1e-4 * float(other.abs().max()), rtol=0)


def test_the_real_hub_states_the_hash_that_we_verify(tmp_path) -> None:
    path = fetch("openai/clip-vit-base-patch32", ["vocab.json"], cache_dir=tmp_path)
    assert len(path.resolve().name) == 40
    assert fetch("openai/clip-vit-base-patch32", ["vocab.json"], cache_dir=tmp_path, recheck=True) == path
    with pytest.raises(clip_hub.DownloadError, match="no such repository, or it is private"):
        fetch("openai/there-is-no-such-model", ["config.json"], cache_dir=tmp_path, token=False)
