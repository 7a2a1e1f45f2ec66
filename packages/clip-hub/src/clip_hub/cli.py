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
from clip_hub.in_flags import speaking_of_flags
from clip_hub.listing import LEGEND, SORTS, as_values, card, matching, ordered, table
from clip_hub.names import resolve
from clip_hub.registry import all_tags, rows_of
from clip_hub.repository import RepositoryName

__all__ = ["main"]

_NAME = "MODEL:TAG as in ViT-B-32:laion2b_s34b_b79k, ORG/NAME, or hf-hub:ORG/NAME@REVISION"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and give its exit code."""
    parser = argparse.ArgumentParser(
        prog="clip-hub", description="Published CLIP weights by name: list, look, fetch, publish."
    )
    parser.add_argument("--version", action="version", version=f"clip-hub {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    listing = commands.add_parser(
        "list",
        help="a table of the weights that can be loaded by name",
        description="Print a table of the published weights that can be loaded by name, with size, cost, scores, "
        "licence and training data. In a terminal the lines fit; a file or a pipe gets whole ones.",
        epilog='Say: clip-hub list --filter "laion-2b mit" --sort imagenet',
    )
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

    fetched = argparse.ArgumentParser(add_help=False)
    fetched.add_argument("name", metavar="NAME", help=_NAME)
    fetched.add_argument("--revision", metavar="REV", help="a branch, a tag or a commit of the repository")
    fetched.add_argument(
        "--cache-dir", metavar="DIR", help="where downloads are kept (default: huggingface_hub's cache)"
    )
    fetched.add_argument("--token", help="for private and gated repositories (default: HF_TOKEN, or `hf auth login`)")
    show = commands.add_parser(
        "show",
        parents=[fetched],
        help="everything known of one set of weights, and how to load it",
        description="Print what the registry knows of published weights: repository, licence, model, training, scores "
        "with their sources. The Hub is asked only for a repository that the registry does not have; its settings are "
        "read then, and no weights.",
    )
    show.add_argument("--json", action="store_true", help="the same as an object in JSON")
    show.set_defaults(action=_show)

    download = commands.add_parser(
        "download",
        parents=[fetched],
        help="fetch and verify weights; prints where they are",
        description="Fetch what loading takes, weights and vocabulary, and hash all of it, also what was here before. "
        "Prints the path of the file of weights, or of the folder of a repository.",
    )
    download.set_defaults(action=_download)

    weights_commands.add(commands)
    publish_commands.add(commands)

    options = parser.parse_args(arguments)
    # huggingface_hub prints its own warnings; passed on to ours they would stand there twice.
    logging.getLogger("huggingface_hub").propagate = False

    def act() -> int | None:
        with speaking_of_flags(vars(options)):
            code: int | None = options.action(options)
            return code

    return run(act, parser.prog)


def _list(options: argparse.Namespace) -> None:
    rows = ordered(matching(all_tags(), options.filter), options.sort)
    if options.json:
        print(json.dumps([as_values(tag) for tag in rows], indent=1))
        return
    # A file or a program behind a pipe gets whole lines; a person lines that fit.
    width = shutil.get_terminal_size((120, 24)).columns if sys.stdout.isatty() else None
    print("\n".join(table(rows, width, options.sort)))
    if width is not None:
        print(f"{len(rows)} of {len(all_tags())} sets of weights. {LEGEND}", file=sys.stderr)


def _show(options: argparse.Namespace) -> None:
    meant = resolve(options.name, options.revision)
    rows = rows_of(meant.repo) if isinstance(meant, RepositoryName) else [meant]
    if rows:
        told = [as_values(row) for row in rows]
        text = json.dumps(told[0] if len(told) == 1 else told, indent=1)
        print(text if options.json else "\n\n".join(card(row) for row in rows))
        return
    from clip_hub.repository_card import look_at

    assert isinstance(meant, RepositoryName)
    facts = look_at(meant, cache_dir=options.cache_dir, token=options.token)
    print(json.dumps(facts.to_json(), indent=1) if options.json else facts.card())


def _download(options: argparse.Namespace) -> None:
    from clip_hub.prefetch import fetch_named

    fetched = {"revision": options.revision, "cache_dir": options.cache_dir, "token": options.token}
    # Whoever asks for the files by name may doubt those that are here.
    print(fetch_named(options.name, **fetched, recheck=True))
