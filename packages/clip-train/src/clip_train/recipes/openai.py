"""OpenAI's own models: what Radford et al. (2021) state, tables 18 to 20. The data, WebImageText, is not published.

They were written down without the article at hand: of these numbers the batch, the pairs and the rounds were compared
with other sources, the learning rates were not.
"""

from __future__ import annotations

from clip_train.recipes.recipe import Fields, Recipe, recipe

__all__ = [
    "openai_rn101",
    "openai_rn50",
    "openai_rn50x16",
    "openai_rn50x4",
    "openai_rn50x64",
    "openai_vit_b_16",
    "openai_vit_b_32",
    "openai_vit_l_14",
    "openai_vit_l_14_336",
]

_SAMPLES = 400_000_000
_DIFFERS = "The data is not published, nor the number of processes; it trained in float16 with a loss scaler."


def _model(model: str, lr: float, *, epochs: int = 32, begins_from: str = "") -> Recipe:
    def stated() -> Fields:
        return {
            "model": f"{model}-quickgelu", "epochs": epochs, "train_num_samples": _SAMPLES, "lr": lr, "wd": 0.2,
            "warmup": 2000, "lr_scheduler": "cosine",
        }  # fmt: skip

    stated.__name__ = f"openai_{model.lower().replace('-', '_')}"
    stated.__doc__ = (
        f"OpenAI's {model} on WebImageText, {epochs} round{'s' if epochs > 1 else ''} of 400 million pairs."
    )
    return recipe(
        source="Radford et al. (2021), tables 18 to 20",
        tags=(f"{model}:openai",),
        global_batch=32768,
        differs=_DIFFERS,
        begins_from=begins_from,
    )(stated)


openai_rn50 = _model("RN50", 5e-4)
openai_rn101 = _model("RN101", 5e-4)
openai_rn50x4 = _model("RN50x4", 5e-4)
openai_rn50x16 = _model("RN50x16", 4e-4)
openai_rn50x64 = _model("RN50x64", 3.6e-4)
openai_vit_b_32 = _model("ViT-B-32", 5e-4)
openai_vit_b_16 = _model("ViT-B-16", 5e-4)
openai_vit_l_14 = _model("ViT-L-14", 4e-4)
openai_vit_l_14_336 = _model("ViT-L-14-336", 2e-5, epochs=1, begins_from="ViT-L-14:openai")
