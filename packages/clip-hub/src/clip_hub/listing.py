"""What the command line shows of published weights: one line of a table, a card, or everything as plain values."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from clip_core.config import ClipConfig, NaFlexConfig, TimmConfig, VitConfig, size_pair
from clip_core.errors import UnknownModel
from clip_hub.sizes import SIZES
from clip_hub.tag import LICENCES, Tag

__all__ = ["LEGEND", "SORTS", "as_values", "card", "laid_out", "matching", "model_facts", "ordered", "table"]

LEGEND = (
    "params and acts in millions; GFLOPs and acts of encoding one image and one text; px: side of the images; IN-1k and"
    " 38 sets: published zero-shot accuracy on ImageNet-1k and the mean of DataComp's 38 sets, %; seen: pairs seen in"
    " training, 10^9; -: not known."
)

SORTS: dict[str, Callable[[Tag], Any]] = {
    "name": lambda tag: tag.name.lower(),
    "imagenet": lambda tag: -(tag.imagenet or 0.0),
    "average": lambda tag: -(tag.average_38 or 0.0),
    "params": lambda tag: SIZES[tag.model].parameters,
    "gflops": lambda tag: SIZES[tag.model].gflops,
    "activations": lambda tag: SIZES[tag.model].activations,
    "resolution": lambda tag: size_pair(tag.config().preprocess.size),
    "samples": lambda tag: -(tag.samples_seen or 0),
}
"""What a list can be sorted by. The best scores and the most samples come first, and the smallest sizes."""

_GAP = "  "
# Column: heading, whether numbers, how soon it goes where the line is too long (0 stays).
_COLUMNS = (
    ("model:tag", False, 0),
    ("params", True, 0),
    ("GFLOPs", True, 3),
    ("acts", True, 4),
    ("px", True, 2),
    ("IN-1k", True, 0),
    ("38 sets", True, 1),
    ("seen", True, 6),
    ("licence", False, 2),
    ("data", False, 5),
)
_SHORTEST_DATA = 12
_SORTED = {
    "imagenet": "IN-1k",
    "average": "38 sets",
    "params": "params",
    "gflops": "GFLOPs",
    "activations": "acts",
    "resolution": "px",
    "samples": "seen",
}
"""Key of `SORTS` -> the heading of the column that shows it."""


def matching(tags: Sequence[Tag], text: str) -> list[Tag]:
    """Those of `tags` that have every word of `text` in a name, repository, training data or licence.

    Raises:
        UnknownModel: there is none.
    """
    words = text.lower().split()
    found = [tag for tag in tags if all(word in _searched(tag) for word in words)]
    if not found:
        raise UnknownModel(f"No weights match --filter {text!r}; `clip-hub list` shows them all.")
    return found


def _searched(tag: Tag) -> str:
    names = " ".join(f"{name}:{tag.tag}" for name in tag.names)
    return f"{names} {tag.repo} {tag.data or ''} {tag.licence or ''}".lower()


def ordered(tags: Sequence[Tag], by: str) -> list[Tag]:
    """`tags` by a key of `SORTS`, then by name."""
    return sorted(tags, key=lambda tag: (SORTS[by](tag), tag.name.lower()))


def table(tags: Sequence[Tag], width: int | None = None, by: str = "name") -> list[str]:
    """The lines of a table with a heading and a rule; at most `width` characters long, or as long as they need.

    Where they do not fit, the training data is cut, and columns go in the order of their worth; a name is never cut,
    and the column of what the rows are sorted `by`, a key of `SORTS`, never goes.
    """
    cells = [tuple(heading for heading, *_ in _COLUMNS), *(_cells(tag) for tag in tags)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    shown = list(range(len(_COLUMNS)))
    data = len(_COLUMNS) - 1

    def excess() -> int:
        return sum(widths[column] + len(_GAP) for column in shown) - len(_GAP) - (width or 0)

    if width is not None and excess() > 0:
        widths[data] = max(widths[data] - excess(), min(widths[data], _SHORTEST_DATA))
        worth = {column: -order for column, (heading, _, order) in enumerate(_COLUMNS) if heading != _SORTED.get(by)}
        for column in sorted((column for column in worth if worth[column]), key=worth.__getitem__):
            if excess() > 0:
                shown.remove(column)
    lines = [_line(row, widths, shown) for row in cells]
    return [lines[0], _GAP.join("-" * widths[column] for column in shown), *lines[1:]]


def _cells(tag: Tag) -> tuple[str, ...]:
    size = SIZES[tag.model]
    return (
        tag.name,
        f"{size.parameters:.1f}",
        f"{size.gflops:.1f}",
        f"{size.activations:.1f}",
        _resolution(tag.config()),
        "-" if tag.imagenet is None else f"{100 * tag.imagenet:.1f}",
        "-" if tag.average_38 is None else f"{100 * tag.average_38:.1f}",
        "-" if tag.samples_seen is None else f"{tag.samples_seen / 1e9:.1f}",
        tag.licence or "-",
        tag.data or "-",
    )


def _line(row: Sequence[str], widths: Sequence[int], shown: Sequence[int]) -> str:
    cells = []
    for column in shown:
        text, width = row[column], widths[column]
        text = text if len(text) <= width else text[: width - 3].rstrip() + "..."
        cells.append(text.rjust(width) if _COLUMNS[column][1] else text.ljust(width))
    return _GAP.join(cells).rstrip()


def card(tag: Tag) -> str:
    """Everything that is known of `tag`, and how to load it; ends without a newline."""
    config, size = tag.config(), SIZES[tag.model]
    unknown = "not known here"
    sections: dict[str, list[tuple[str, str]]] = {
        "Weights": [
            ("names", ", ".join(f"{name}:{tag.tag}" for name in tag.names)),
            ("repository", f"https://huggingface.co/{tag.repo}, revision {tag.revision}"),
            ("file", f"{' or '.join(tag.files)}, in {tag.layout}'s layout"),
            *([("also at", tag.url)] if tag.url else []),
            ("licence", LICENCES[tag.licence] if tag.licence else f"{unknown}; see the repository"),
        ],
        "Model": [
            ("parameters", f"{size.parameters:.2f} M"),
            ("GFLOPs", f"{size.image_gflops:.2f} for an image, {size.text_gflops:.2f} for a text"),
            ("activations", f"{size.image_activations:.2f} M for an image, {size.text_activations:.2f} M for a text"),
            *model_facts(config),
        ],
        "Training": [
            ("data", tag.data or unknown),
            ("samples seen", f"{tag.samples_seen:,}" if tag.samples_seen else unknown),
        ],
        "Published scores": _scores(tag),
    }
    return laid_out(tag.name, sections, tag.note)


def laid_out(name: str, sections: Mapping[str, Sequence[tuple[str, str]]], note: str | None = None) -> str:
    """A card: the name that `load` takes, titled rows of (what, value), a note, and how to load it."""
    widest = max(len(key) for rows in sections.values() for key, _ in rows)
    lines = [name]
    for title, rows in sections.items():
        lines += ["", title, *(f"  {key:<{widest}}  {value}" for key, value in rows)]
    if note:
        lines += ["", "Note", *textwrap.wrap(note, 100, initial_indent="  ", subsequent_indent="  ")]
    return "\n".join(
        [
            *lines,
            "",
            "To load it",
            "  import clip_hub",
            f'  bundle = clip_hub.load("{name}")',
            '  features = bundle.model.encode_text(bundle.tokenizer(["a photo of a cat"]))',
        ]
    )


def model_facts(config: ClipConfig) -> list[tuple[str, str]]:
    """What a configuration says of its model's images, texts and features, as rows of a card."""
    preprocess = config.preprocess
    towers = (config.image, config.text)
    activation = next((found for tower in towers if (found := getattr(tower, "activation", None))), None)
    return [
        ("images", _images(config)),
        ("texts", f"{config.text.context_length} tokens"),
        ("features", str(config.embed_dim)),
        ("activation", activation or "as the libraries of its towers have it"),
        ("resize", f"{preprocess.resize_mode}, {preprocess.interpolation}"),
        ("mean, std", f"{_numbers(preprocess.mean)}; {_numbers(preprocess.std)}"),
    ]


def _scores(tag: Tag) -> list[tuple[str, str]]:
    rows = []
    for name, value in (("ImageNet-1k, zero-shot top-1", tag.imagenet), ("mean of 38 sets", tag.average_38)):
        if value is not None:
            rows.append((name, f"{100 * value:.1f} %  ({tag.measured_by})"))
    rows += [
        (f"{score.dataset}, {score.metric}", f"{100 * score.value:.1f} %  ({score.source})") for score in tag.scores
    ]
    return rows or [("ImageNet-1k, zero-shot top-1", "not known here")]


def _images(config: ClipConfig) -> str:
    tower = config.image
    if isinstance(tower, NaFlexConfig):
        return f"any shape, in patches of {tower.patch_size} px"
    height, width = size_pair(config.preprocess.size)
    kind = f"patches of {tower.patch_size} px" if isinstance(tower, VitConfig) else ""
    kind = f"timm's {tower.name}" if isinstance(tower, TimmConfig) else kind
    return f"{height} x {width} px" + (f", {kind}" if kind else "")


def _resolution(config: ClipConfig) -> str:
    if isinstance(config.image, NaFlexConfig):
        return "any"
    height, width = size_pair(config.preprocess.size)
    return str(height) if height == width else f"{height}x{width}"


def _numbers(values: Sequence[float]) -> str:
    return " ".join(map(str, values))


def as_values(tag: Tag) -> dict[str, Any]:
    """`tag` as plain values for JSON, with its names and the size of its architecture."""
    size, config = SIZES[tag.model], tag.config()
    return {
        "name": tag.name,
        "names": [f"{name}:{tag.tag}" for name in tag.names],
        **dataclasses.asdict(tag),
        **size._asdict(),
        "gflops": round(size.gflops, 2),
        "activations": round(size.activations, 2),
        "image_size": list(size_pair(config.preprocess.size)),
        "context_length": config.text.context_length,
        "embed_dim": config.embed_dim,
    }
