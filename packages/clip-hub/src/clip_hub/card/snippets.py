"""Code that gets a stranger from the repository to probabilities: one snippet for each library that can load it.

Each is complete: with `picture.jpg` beside it, it runs. The tests run them as they stand in a card.
"""

from __future__ import annotations

from clip_hub.card.facts import CardFacts

__all__ = ["TITLES", "snippets"]

TITLES = {"bundle": "clip-hub", "open_clip": "OpenCLIP", "transformers": "transformers"}
"""Layout -> the library that reads it."""

_LABELS = '["a photo of a cat", "a photo of a dog", "a diagram"]'

_BUNDLE = """\
# pip install clip-hub
import clip_hub
import torch
from PIL import Image

bundle = clip_hub.load("{repo}")
labels = {labels}
images = bundle.preprocess(Image.open("picture.jpg")).unsqueeze(0)
with torch.no_grad():
    logits, _ = bundle.model.get_logits(images, bundle.tokenizer(labels))
probabilities = logits.{squash}
print(dict(zip(labels, probabilities[0].tolist())))
"""

_OPEN_CLIP = """\
# pip install open_clip_torch
import open_clip
import torch
from PIL import Image

model, preprocess = open_clip.create_model_from_pretrained("hf-hub:{repo}")
tokenizer = open_clip.get_tokenizer("hf-hub:{repo}")
model.eval()
labels = {labels}
images = preprocess(Image.open("picture.jpg")).unsqueeze(0)
with torch.no_grad():
    image_features = model.encode_image(images, normalize=True)
    text_features = model.encode_text(tokenizer(labels), normalize=True)
    logits = model.logit_scale.exp() * image_features @ text_features.T{bias}
probabilities = logits.{squash}
print(dict(zip(labels, probabilities[0].tolist())))
"""

_TRANSFORMERS = """\
# pip install transformers
import torch
from PIL import Image
from transformers import AutoModel, AutoProcessor

model = AutoModel.from_pretrained("{repo}").eval()
processor = AutoProcessor.from_pretrained("{repo}")
labels = {labels}
image = Image.open("picture.jpg").convert("RGB")
inputs = processor(text=labels, images=image, padding={padding}, return_tensors="pt")
with torch.no_grad():
    logits = model(**inputs).logits_per_image
probabilities = logits.{squash}
print(dict(zip(labels, probabilities[0].tolist())))
"""


def snippets(facts: CardFacts) -> dict[str, str]:
    """Layout -> code, for those that the repository has."""
    sigmoid = facts.config.logit_bias is not None
    words = {
        "repo": facts.repo,
        "labels": _LABELS,
        # With a bias each pair has a probability of its own; without one the labels share it.
        "squash": "sigmoid()" if sigmoid else "softmax(dim=-1)",
        "bias": " + model.logit_bias" if sigmoid else "",
        "padding": '"max_length"' if sigmoid else "True",
    }
    templates = {"bundle": _BUNDLE, "open_clip": _OPEN_CLIP, "transformers": _TRANSFORMERS}
    return {layout: text.format(**words) for layout, text in templates.items() if layout in facts.layouts}
