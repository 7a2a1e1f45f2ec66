"""The command `clip-hub`: which published weights there are, what is known of one, fetching and publishing them."""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import sys
from collections.abc import Sequence

from clip_core.command import run
from clip_hub import publish_commands, weights_commands
from clip_hub.__about__ import __version__
from clip_hub.listing import LEGEND, SORTS, as_values, card, matching, ordered, table
from clip_hub.registry import all_tags, find_name

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and give its exit code."""
    parser = argparse.ArgumentParser(
        prog="clip-hub", description="Published CLIP weights by name: list, look, fetch, publish."
    )
    parser.add_argument("--version", action="version", version=f"clip-hub {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    listing = commands.add_parser("list", help="a table of the weights that can be loaded by name")
    listing.add_argument(
        "--filter",
        default="",
        metavar="TEXT",
        help="only rows with each word of TEXT in their names, repository, training data or licence",
    )
    listing.add_argument(
        "--sort",
        choices=SORTS,
        default="name",
        help="best scores, most samples or smallest sizes come first (default name)",
    )
    listing.add_argument("--json", action="store_true", help="every fact of each row, as a list in JSON")
    listing.set_defaults(action=_list)

    show = commands.add_parser("show", help="everything known of one set of weights, and how to load it")
    show.add_argument("name", metavar="MODEL:TAG", help="say ViT-B-32:laion2b_s34b_b79k")
    show.add_argument("--json", action="store_true", help="the same as an object in JSON")
    show.set_defaults(action=_show)

    download = commands.add_parser("download", help="fetch and verify weights; prints where the file is")
    download.add_argument("name", metavar="MODEL:TAG", help="say ViT-B-32:laion2b_s34b_b79k")
    download.add_argument("--cache-dir", metavar="DIR", help="where to keep it (default: huggingface_hub's cache)")
    download.set_defaults(action=_download)

    weights_commands.add(commands)
    publish_commands.add(commands)

    options = parser.parse_args(arguments)
    # huggingface_hub prints its own warnings; passed on to ours they would stand there twice.
    logging.getLogger("huggingface_hub").propagate = False
    return run(lambda: options.action(options), parser.prog)


def _list(options: argparse.Namespace) -> None:
    rows = ordered(matching(all_tags(), options.filter), options.sort)
    if options.json:
        print(json.dumps([as_values(tag) for tag in rows], indent=1))
        return
    # A file or a program behind a pipe gets whole lines; a person lines that fit.
    width = shutil.get_terminal_size((120, 24)).columns if sys.stdout.isatty() else None
    print("\n".join(table(rows, width)))
    if width is not None:
        print(f"{len(rows)} of {len(all_tags())} sets of weights. {LEGEND}", file=sys.stderr)


def _show(options: argparse.Namespace) -> None:
    tag = find_name(options.name)
    print(json.dumps(as_values(tag), indent=1) if options.json else card(tag))


def _download(options: argparse.Namespace) -> None:
    from clip_hub.download import fetch

    tag = find_name(options.name)
    # Whoever asks for the file by name may doubt the one that is here.
    print(fetch(tag.repo, tag.files, revision=tag.revision, cache_dir=options.cache_dir, recheck=True))
