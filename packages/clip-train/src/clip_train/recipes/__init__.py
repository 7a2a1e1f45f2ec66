"""Published training procedures as functions that return a `TrainConfig`: `vit_h_14_laion2b(train_data="...")`.

Every value is from the source that the recipe names; what is not published stays at clip-train's default, and the
recipe says so (`differs`). What only spends time differently (workers, local loss, static graphs) is left out.
"""

from __future__ import annotations

from clip_core.errors import ConfigError, nearest
from clip_train.recipes import coca, convnext, datacomp, eva, openai, resnet, text_models, vit
from clip_train.recipes.recipe import RECIPES, Recipe
from clip_train.recipes.tags import NOT_PUBLISHED, find_for_tag

__all__ = [
    "NOT_PUBLISHED",
    "RECIPES",
    "Recipe",
    "coca",
    "convnext",
    "datacomp",
    "eva",
    "find",
    "find_for_tag",
    "openai",
    "resnet",
    "text_models",
    "vit",
]


def find(name: str) -> Recipe:
    """The recipe called `name`, dashes or underscores, or that of the weights "model:tag".

    Raises `ConfigError` for an unknown name, with the nearest, and for a tag with several recipes or none.
    """
    if ":" in name:
        found, why = find_for_tag(name)
        if len(found) == 1:
            return found[0]
        if found:
            raise ConfigError(f"{name} has several recipes: {', '.join(recipe.name for recipe in found)}.")
        raise ConfigError(f"{name} has no recipe: {why}.")
    plain = name.replace("-", "_").lower()
    if plain not in RECIPES:
        close = nearest(plain, RECIPES)
        hint = f" Did you mean {', '.join(close)}?" if close else ""
        raise ConfigError(f"There is no recipe {name!r}.{hint} clip-train recipes lists them all.")
    return RECIPES[plain]
