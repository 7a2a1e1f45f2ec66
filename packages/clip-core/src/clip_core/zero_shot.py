"""Classification by text: class names and prompt templates become a (D, C) weight matrix, images are scored with it.

Shapes: B images, D features, C classes, T templates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from clip_core.errors import ConfigError
from clip_core.model import Clip

if TYPE_CHECKING:
    from clip_core.tokenizer import Tokenizer

__all__ = ["Template", "build_zero_shot_classifier", "encode_texts", "fill_template"]

Template = str | Callable[[str], str]


def fill_template(template: Template, classname: str) -> str:
    """The prompt for one class: "{c}" in a string is replaced by the name, a callable is called with it.

    Raises:
        ConfigError: a string template has no "{c}", so it would give every class the same prompt.
    """
    if callable(template):
        return template(classname)
    if "{c}" not in template:
        raise ConfigError(f"The template {template!r} has no place for the class; write it as {{c}}.")
    return template.replace("{c}", classname)


@torch.no_grad()
def encode_texts(
    model: Clip,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    batch_size: int = 256,
    device: str | torch.device | None = None,
    progress: bool = False,
) -> Tensor:
    """Normalised text features (len(texts), D) in float32 on the CPU, in the order of `texts`.

    Args:
        model: in evaluation mode.
        tokenizer: the model's own.
        texts: one or more strings.
        batch_size: texts encoded at once.
        device: where the model is; default the device of its weights.
        progress: show a bar on stderr.
    """
    from tqdm import tqdm

    if isinstance(texts, str) or not texts:
        raise ConfigError(f"encode_texts got {texts!r}; allowed: a list of one or more strings.")
    if batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size}; allowed: 1 or more.")
    device = device or model.logit_scale.device
    starts = tqdm(range(0, len(texts), batch_size), desc="texts", unit="batch", disable=not progress)
    batches = (tokenizer(list(texts[start : start + batch_size])).to(device) for start in starts)
    return torch.cat([F.normalize(model.encode_text(tokens).float(), dim=-1).cpu() for tokens in batches])


def build_zero_shot_classifier(
    model: Clip,
    tokenizer: Tokenizer,
    classnames: Sequence[str],
    templates: Sequence[Template],
    *,
    batch_size: int = 256,
    device: str | torch.device | None = None,
    progress: bool = False,
) -> Tensor:
    """Classifier weights (D, C) in float32 on the CPU, columns of length 1.

    A class is the mean of its T normalised prompts, normalised again (Radford et al. 2021, section 3.1.4). Scores are
    `logit_scale * image_features @ weights`. Each distinct prompt is encoded once.

    Raises:
        ConfigError: no classes, no templates, one string instead of a list, or a template without "{c}".
    """
    for title, values in (("classnames", classnames), ("templates", templates)):
        if isinstance(values, str) or not values:
            raise ConfigError(f"{title} is {values!r}; allowed: a list of one or more.")
    prompts = [fill_template(template, name) for name in classnames for template in templates]
    distinct = {prompt: row for row, prompt in enumerate(dict.fromkeys(prompts))}
    features = encode_texts(model, tokenizer, list(distinct), batch_size=batch_size, device=device, progress=progress)
    rows = torch.tensor([distinct[prompt] for prompt in prompts]).view(len(classnames), len(templates))
    return F.normalize(features[rows].mean(dim=1), dim=-1).T.contiguous()
