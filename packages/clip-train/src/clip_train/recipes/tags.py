"""Which recipe trained which published weights, for every tag of OpenCLIP's page of pretrained models.

A tag without one has the reason instead. What this room leaves out: the tags of other families that clip-hub knows.
"""

from __future__ import annotations

from clip_hub.registry import find_name
from clip_train.recipes.recipe import RECIPES, Recipe

__all__ = ["NOT_PUBLISHED", "find_for_tag"]

NOT_PUBLISHED: dict[str, str] = {
    "ViT-bigG-14:laion2b_s39b_b160k": "its model card refers to an article for the training procedure",
    "convnext_base:laion400m_s13b_b51k": "known are 13 billion samples and a batch of 51k, from the name",
    "coca_ViT-B-32:mscoco_finetuned_laion2b_s13b_b90k": "OpenCLIP's README states the fine-tune of ViT-L/14 alone",
    "EVA01-g-14:laion400m_s11b_b41k": "known are float16, a batch of 41k and 256 GPUs, from EVA-CLIP's README",
}
"""Tags whose procedure is not published, or not beyond what is said here."""


def find_for_tag(name: str) -> tuple[list[Recipe], str]:
    """The recipes of the weights "model:tag", and where there is none, why.

    Raises `UnknownModel` for a name that clip-hub does not know, with the nearest.
    """
    row = find_name(name)
    found = [recipe for recipe in RECIPES.values() if row.name in recipe.tags]
    if found:
        return found, ""
    return [], NOT_PUBLISHED.get(row.name, "no procedure is known here")
