"""The text of a model card: its sections in the order that cards of CLIP models have, each from `CardFacts`.

Where something is not known, the section says so. What this room leaves out: how facts are found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from clip_core.config import ClipTokenizerConfig, HfTextConfig, TimmConfig
from clip_hub.__about__ import __version__
from clip_hub.card.citations import citations
from clip_hub.card.command import training_command
from clip_hub.card.facts import CardFacts, architecture_of
from clip_hub.card.metadata import check_card, metadata
from clip_hub.card.prose import DATA_WARNING, DIRECT_USE, DOWNSTREAM_USE, OUT_OF_SCOPE, USES
from clip_hub.card.results import Row
from clip_hub.card.snippets import TITLES, snippets
from clip_hub.card.words import image_words, language_words, licence_words
from clip_hub.scrubbing import scrubbed

__all__ = ["write_card"]

_CAPTIONS = {
    "loss.png": "The loss over the run.",
    "zero_shot.png": "Results over the run.",
    "results.png": "The shares of the table above, with their 95 % intervals.",
}


def write_card(facts: CardFacts) -> str:
    """The card as Markdown with its metadata in front; raises `ConfigError` where the Hub would not understand it."""
    sections: dict[str, Callable[[CardFacts], str]] = {
        "Model Details": _details,
        "Uses": _uses,
        "Training Details": _training,
        "Evaluation": _evaluation,
        "Environment": _environment,
        "Acknowledgements": lambda facts: facts.description.acknowledgements,
        "Citation": _citation,
        "How to Get Started with the Model": _start,
    }
    bodies = {title: text for title, write in sections.items() if (text := write(facts))}
    contents = "\n".join(f"{place}. [{title}](#{_anchor(title)})" for place, title in enumerate(bodies, 1))
    parts = [f"---\n{metadata(facts).to_yaml()}\n---\n# Model card for {facts.title}", "# Table of Contents", contents]
    for title, body in bodies.items():
        parts += [f"# {title}", body]
    text = "\n\n".join(parts) + "\n"
    check_card(text)
    return text


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")


def _details(facts: CardFacts) -> str:
    about, name = facts.description, architecture_of(facts)
    config, image, text, preprocess = facts.config, facts.config.image, facts.config.text, facts.config.preprocess
    what = (
        "CoCa"
        if config.decoder is not None
        else "CLIP with a sigmoid loss"
        if config.logit_bias is not None
        else "CLIP"
    )
    trunk = f"`{image.name}` of timm" if isinstance(image, TimmConfig) else image.kind
    encoder = f"`{text.model_type}`" if isinstance(text, HfTextConfig) else text.kind
    tokenizer = "CLIP's own" if isinstance(config.tokenizer, ClipTokenizerConfig) else "in the repository's files"
    rows = {
        "Architecture": f"`{name}`" if name else "",
        "Kind": what,
        "Parameters": f"{facts.parameters / 1e6:,.2f} M, stored as {facts.precision}",
        "Features": f"{config.embed_dim} numbers for an image or a text",
        "Image tower": f"{trunk}, {_pixels(image.image_size)}{_sizes(image)}",
        "Text tower": f"{encoder}, {text.context_length} tokens{_sizes(text)}; tokenizer: {tokenizer}",
        "Images": f"{image_words(preprocess)}; mean {_three(preprocess.mean)}, standard deviation "
        f"{_three(preprocess.std)} of the channels",
        "Trained by": about.authors,
        "Languages": language_words(about.languages) or "not stated",
        "Licence": licence_words(about.licence)
        if about.licence
        else "not stated; without one nobody has the right to use the weights",
    }
    table = _table(("", ""), [(f"**{key}**", value) for key, value in rows.items() if value])
    files = [f"- {TITLES[layout]}: `{file}`" for layout, file in facts.layouts.items()]
    files += [f"- {TITLES[layout]} cannot express this model: {why}" for layout, why in facts.missing.items()]
    summary = about.summary or _summary(facts, what, name)
    return "\n\n".join(["## Model Description", summary, table, "## Files", "\n".join(files)])


def _summary(facts: CardFacts, what: str, name: str) -> str:
    """What the model is, from what is known: its size, what it was trained on, how well it does on one set."""
    config, run = facts.config, facts.run
    size = f"{facts.parameters / 1e6:,.0f}" if facts.parameters >= 10_000_000 else f"{facts.parameters / 1e6:.2g}"
    parts = [
        f"{facts.title} is a {what} model{f' of the architecture `{name}`' if name else ''} with {size} million "
        f"parameters. It gives an image or a text {config.embed_dim} numbers, so that those of a picture and of a text "
        "that fits it point the same way."
    ]
    if run is not None and run.summary.get("samples_seen"):
        began = "from the weights of another model" if run.settings.get("pretrained") else "from random weights"
        of = f" of {run.summary['samples']:,}" if run.summary.get("samples") else ""
        parts.append(f"It was trained {began} on {run.summary['samples_seen']:,} pairs{of}, repetitions counted.")
    best = next((row for row in facts.rows if row.metric == "acc1"), None)
    if best is not None:
        set_name = best.about.get("title") or best.dataset
        parts.append(f"Its zero-shot accuracy on {set_name} is {_value(best)} %.")
    return " ".join(parts)


def _uses(facts: CardFacts) -> str:
    languages = language_words(facts.description.languages)
    captions = f"The captions were in {languages}." if languages else "The language of the captions is not stated."
    measured = f"**Other languages.** {captions} What the model does with another language was not measured."
    parts = [
        USES,
        "## Direct Use",
        DIRECT_USE,
        "## Downstream Use",
        DOWNSTREAM_USE,
        "## Out-of-Scope Use",
        OUT_OF_SCOPE,
    ]
    return "\n\n".join([*parts, measured])


def _training(facts: CardFacts) -> str:
    run = facts.run
    data = facts.description.training_data
    if run is not None:
        shards = f"The run read `{scrubbed(str(run.settings.get('train_data', '')))}`"
        count = run.summary.get("samples")
        data = "\n\n".join(part for part in (data, f"{shards}, {count:,} pairs." if count else f"{shards}.") if part)
    parts = ["## Training Data", data or "Not stated.", DATA_WARNING, "## Training Procedure"]
    if run is None:
        return "\n\n".join([*parts, "Not stated: this repository was made from finished weights."])
    parts.append(
        "The command, with every setting that the run had (`...` stands for a folder of that machine):\n\n```bash\n"
        + training_command(run.settings)
        + "\n```"
    )
    chosen = (
        "batch_size",
        "epochs",
        "lr",
        "lr_scheduler",
        "warmup",
        "wd",
        "beta1",
        "beta2",
        "eps",
        "precision",
        "seed",
    )
    table = [(f"`{name}`", _said(run.settings[name])) for name in chosen if name in run.settings]
    table += _counts(run.summary)
    parts.append(_table(("Setting", "Value"), table))
    started = run.settings.get("pretrained")
    parts.append(
        f"It began with the weights `{scrubbed(str(started))}`." if started else "It began with random weights."
    )
    return "\n\n".join([*parts, *_pictures(facts, "loss.png", "zero_shot.png")])


def _counts(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """What a run counted, for those counts that are there."""
    names = {
        "steps": "steps taken",
        "samples_seen": "pairs seen",
        "loss": "loss at the end",
        "samples_per_second": "pairs per second",
        "skipped_samples": "pairs that could not be read",
        "truncated_captions": "captions cut to the context length",
        "skipped_steps": "steps left out because they were not finite",
    }
    return [(label, _said(summary[name])) for name, label in names.items() if summary.get(name) is not None]


def _evaluation(facts: CardFacts) -> str:
    if not facts.rows:
        return "No results: this model was published without evaluation records. Measure it before you rely on it."
    parts = [
        "Measured with clip-eval on exactly these weights: every record states their hash, and it was compared when "
        "this card was written. The records are in `evaluation/`.",
        "## Testing Data",
        "\n".join(_sets(facts)),
        "## Results",
    ]
    shares = [row for row in facts.rows if row.is_share]
    others = [row for row in facts.rows if not row.is_share]
    if shares:
        parts.append(_numbers(shares, "Value, %"))
    if others:
        parts += ["Ranks and other numbers, which are no shares:", _numbers(others, "Value")]
    parts.append("Where a right and a wrong answer tie, the value is the mean over the ways to break it.")
    return "\n\n".join([*parts, *_pictures(facts, "results.png")])


def _numbers(rows: Sequence[Row], heading: str) -> str:
    table = [
        (f"{row.dataset} ({row.split})", row.task_name, row.metric_name, _value(row), _interval(row), f"{row.count:,}")
        for row in rows
    ]
    return _table(("Data set", "Task", "Metric", heading, "95 % interval", "Queries"), table)


def _sets(facts: CardFacts) -> list[str]:
    lines, said = [], set()
    for (name, split), row in {(row.dataset, row.split): row for row in facts.rows}.items():
        about = [str(row.about[key]).rstrip(".") for key in ("title", "description", "source") if row.about.get(key)]
        licence = f" Licence: {row.about['licence']}." if row.about.get("licence") else ""
        lines.append(f"- **{name}**, split {split}: {'. '.join(about) or 'no description'}.{licence}")
        # Two sets of one source have some notes in common.
        notes = [note for note in row.about.get("notes", []) if note not in said]
        said |= set(notes)
        lines += [f"  - {note}" for note in notes]
    return lines


def _value(row: Row) -> str:
    return f"{100 * row.value:.2f}" if row.is_share else f"{row.value:g}"


def _interval(row: Row) -> str:
    return f"{100 * row.low:.2f} – {100 * row.high:.2f}" if row.is_share else f"{row.low:g} – {row.high:g}"


def _environment(facts: CardFacts) -> str:
    table: list[tuple[str, str]] = []
    if facts.run is not None:
        settings = facts.run.settings
        table.append(("Training", f"device {settings.get('device')}, precision {settings.get('precision')}"))
    if facts.rows:
        row = facts.rows[0]
        table.append(("Evaluation", f"device {row.device}, precision {row.precision}"))
        table.append(("Versions at evaluation", ", ".join(f"{name} {number}" for name, number in row.versions.items())))
    table.append(("Published with", f"clip-hub {__version__}"))
    return _table(("", ""), table)


def _citation(facts: CardFacts) -> str:
    return "\n\n".join(f"{name}:\n\n```bibtex\n{entry}\n```" for name, entry in citations(facts).items())


def _start(facts: CardFacts) -> str:
    intro = "Each of these loads the same weights, and says how well three labels fit a picture `picture.jpg` of yours."
    codes = [f"With {TITLES[layout]}:\n\n```python\n{code}```" for layout, code in snippets(facts).items()]
    return "\n\n".join([intro, *codes])


def _pictures(facts: CardFacts, *names: str) -> list[str]:
    held = {path.rpartition("/")[2]: path for path in facts.figures}
    return [f"![{_CAPTIONS[name]}]({held[name]})\n\n{_CAPTIONS[name]}" for name in names if name in held]


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines
    )


def _said(value: Any) -> str:
    return (
        f"{value:,}"
        if isinstance(value, int) and not isinstance(value, bool)
        else f"{value:.5g}"
        if isinstance(value, float)
        else str(value)
    )


def _pixels(size: int | tuple[int, int]) -> str:
    return f"{size} x {size} pixels" if isinstance(size, int) else f"{size[0]} x {size[1]} pixels"


def _sizes(tower: Any) -> str:
    words = {"patch_size": "patches of {}", "layers": "{} layers", "width": "width {}", "heads": "{} heads"}
    said = [
        text.format(getattr(tower, name)) for name, text in words.items() if isinstance(getattr(tower, name, None), int)
    ]
    return "".join(f", {part}" for part in said)


def _three(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{value:.4g}" for value in values) + ")"
