"""The command `clip-hub`: which published weights there are, what is known of one, and fetching it."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from clip_core.command import run
from clip_core.config import ClipConfig, VitConfig, size_pair
from clip_core.errors import UnknownModel
from clip_hub.__about__ import __version__

if TYPE_CHECKING:
    from clip_hub.registry import Tag

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and give its exit code."""
    parser = argparse.ArgumentParser(
        prog="clip-hub", description="Published CLIP weights by name: list them, look at one, fetch it into the cache."
    )
    parser.add_argument("--version", action="version", version=f"clip-hub {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    listing = commands.add_parser("list", help="a table of the weights that can be loaded by name")
    listing.add_argument("--filter", default="", metavar="TEXT", help="only names, data or licences with TEXT in them")
    listing.add_argument(
        "--sort",
        choices=("name", "imagenet", "average"),
        default="name",
        help="scores come highest first (default name)",
    )
    listing.set_defaults(action=_list)

    show = commands.add_parser("show", help="everything known of one set of weights")
    show.add_argument("name", metavar="MODEL:TAG", help="say ViT-B-32:laion2b_s34b_b79k")
    show.set_defaults(action=_show)

    download = commands.add_parser("download", help="fetch and verify weights; prints where the file is")
    download.add_argument("name", metavar="MODEL:TAG", help="say ViT-B-32:laion2b_s34b_b79k")
    download.add_argument("--cache-dir", metavar="DIR", help="where to keep it (default: huggingface_hub's cache)")
    download.set_defaults(action=_download)

    options = parser.parse_args(arguments)
    # huggingface_hub prints its own warnings; passed on to ours they would stand there twice.
    logging.getLogger("huggingface_hub").propagate = False
    return run(lambda: options.action(options), parser.prog)


def _list(options: argparse.Namespace) -> None:
    from clip_hub.registry import all_tags

    wanted = options.filter.lower()
    rows = [tag for tag in all_tags() if wanted in f"{tag.model}:{tag.tag} {tag.data} {tag.licence}".lower()]
    if not rows:
        raise UnknownModel(f"No weights match --filter {options.filter!r}; `clip-hub list` shows them all.")
    if options.sort == "name":
        rows.sort(key=lambda tag: (tag.model.lower(), tag.tag))
    else:
        score = "imagenet" if options.sort == "imagenet" else "average_38"
        rows.sort(key=lambda tag: -(getattr(tag, score) or 0.0))
    table = [("model:tag", "ImageNet", "38 sets", "activation", "licence", "data")]
    for tag in rows:
        name = f"{tag.model}:{tag.tag}"
        licence, data = str(tag.licence or "-"), tag.data or "-"
        table.append((name, _percent(tag.imagenet), _percent(tag.average_38), tag.activation or "-", licence, data))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for number, row in enumerate(table):
        cells = [
            cell.rjust(width) if column in (1, 2) else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())
        if number == 0:
            print("  ".join("-" * width for width in widths))


def _show(options: argparse.Namespace) -> None:
    from clip_core import create_model

    tag = _named(options.name)
    config = tag.config()
    parameters = sum(value.numel() for value in create_model(tag.model, device="meta").parameters())
    facts = {
        "names": ", ".join(f"{name}:{tag.tag}" for name in tag.names),
        "parameters": f"{parameters / 1e6:.2f} M",
        "image": _image(config),
        "context": f"{config.text.context_length} tokens",
        "activation": tag.activation or "as the towers have it",
        "mean, std": f"{config.preprocess.mean}, {config.preprocess.std}",
        "resize": f"{config.preprocess.resize_mode}, {config.preprocess.interpolation}",
        "trained on": tag.data or "not known here",
        "samples seen": f"{tag.samples_seen:,}" if tag.samples_seen else "not known here",
        "ImageNet zero-shot": _percent(tag.imagenet),
        "mean of 38 sets": _percent(tag.average_38),
        "licence": tag.licence or "not known here; see the repository",
        "repository": f"{tag.repo} at {tag.revision}",
    }
    for key, value in facts.items():
        print(f"{key:<19} {value}")


def _image(config: ClipConfig) -> str:
    height, width = size_pair(config.image.image_size)
    size = f"{height} px" if height == width else f"{height} x {width} px"
    patch = f", patches of {config.image.patch_size}" if isinstance(config.image, VitConfig) else ""
    return f"{size}{patch}"


def _download(options: argparse.Namespace) -> None:
    from clip_hub.download import fetch

    tag = _named(options.name)
    print(fetch(tag.repo, tag.files, revision=tag.revision, cache_dir=options.cache_dir))


def _named(name: str) -> Tag:
    from clip_hub.registry import find_name

    return find_name(name)


def _percent(score: float | None) -> str:
    return "-" if score is None else f"{100 * score:.1f} %"
