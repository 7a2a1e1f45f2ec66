"""The head of a model card, which the Hub reads: licence, tags, library, task, results, examples for its widget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clip_core.errors import ConfigError
from clip_hub.card.facts import LICENCES, CardFacts

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

__all__ = ["check_card", "metadata"]

_TASK = "zero-shot-image-classification"
_SAMPLES = "https://huggingface.co/datasets/mishig/sample_images/resolve/main"
_WIDGET = [
    {
        "src": f"{_SAMPLES}/cat-dog-music.png",
        "candidate_labels": "playing music, playing sports",
        "example_title": "Cat & Dog",
    },
    {
        "src": f"{_SAMPLES}/football-match.jpg",
        "candidate_labels": "a football match, a concert, a lecture",
        "example_title": "Football",
    },
]
# Task of a record -> (the Hub's type, what it is called); metric -> the Hub's type.
_TASKS = {
    "zero_shot_classification": (_TASK, "Zero-Shot Image Classification"),
    "retrieval": ("image-text-retrieval", "Image-Text Retrieval"),
}
_METRICS = {"acc1": "accuracy", "mean_per_class_recall": "recall"}


def metadata(facts: CardFacts) -> ModelCardData:
    """The metadata of a card; what is not known is left out."""
    from huggingface_hub import EvalResult, ModelCardData

    about = facts.description
    family = "coca" if facts.config.decoder is not None else "siglip" if facts.config.logit_bias is not None else ""
    results = [
        EvalResult(
            task_type=_TASKS.get(row.task, (row.task, ""))[0],
            task_name=_TASKS.get(row.task, ("", row.task_name))[1],
            dataset_type=row.dataset,
            dataset_name=str(row.about.get("title") or row.dataset),
            dataset_split=row.split,
            metric_type=_METRICS.get(row.metric, row.metric),
            metric_name=row.metric_name,
            metric_value=round(row.value, 6),
        )
        for row in facts.rows
    ]
    known: dict[str, Any] = {
        "language": list(about.languages) or None,
        "license": about.licence or None,
        "base_model": _base_model(facts),
        "eval_results": results or None,
        "model_name": facts.title if results else None,
    }
    return ModelCardData(
        library_name=next((name for name in ("open_clip", "transformers") if name in facts.layouts), "clip-hub"),
        pipeline_tag=_TASK,
        tags=[_TASK, "clip", *([family] if family else [])],
        widget=_WIDGET,
        **{key: value for key, value in known.items() if value is not None},
    )


def _base_model(facts: CardFacts) -> str | None:
    """The Hub repository that the run began with, where its settings name one of the registry's tags."""
    from clip_core.errors import UnknownModel
    from clip_hub.registry import find

    settings = {} if facts.run is None else facts.run.settings
    if not settings.get("pretrained"):
        return None
    try:
        return find(str(settings["model"]), str(settings["pretrained"])).repo
    except UnknownModel:
        return None  # a file or a folder


def check_card(text: str) -> None:
    """Raise `ConfigError` where the Hub would not understand the head of the card `text`."""
    from huggingface_hub import ModelCard

    try:
        data = ModelCard(text, ignore_metadata_errors=False).data.to_dict()  # type: ignore[no-untyped-call]
    except Exception as error:  # YAML's errors have no class that huggingface_hub gives us
        raise ConfigError(f"The head of the model card is not valid: {str(error).splitlines()[0]}.") from error
    licence = data.get("license")
    if licence is not None and licence not in LICENCES:
        raise ConfigError(
            f"The model card has the licence {licence!r}, which the Hub does not know; say mit ... or other."
        )
    if not isinstance(data.get("widget", []), list):
        raise ConfigError(f"The model card has the widget {data['widget']!r}; allowed: a list of examples.")
