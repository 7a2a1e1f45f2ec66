"""The commands `clip-hub push` and `clip-hub card`: what they ask, and what they print."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clip_core.errors import ConfigError, listed
from clip_hub.card import Description, write_card
from clip_hub.publish import Plan, push
from clip_hub.repository import require_repository
from clip_hub.staging import check_source, write_facts

__all__ = ["add", "describe"]


def add(commands: Any) -> None:
    """Add both commands to the subparsers `commands`."""
    _add_push(commands)
    _add_card(commands)


def _add_push(commands: Any) -> None:
    parser = commands.add_parser(
        "push",
        help="publish a model on the Hub, for clip-hub, OpenCLIP and transformers",
        description="Publish a bundle, a training run or a file of weights as one Hub repository that clip-hub, "
        "OpenCLIP (hf-hub:ORG/NAME) and transformers (from_pretrained) load. Shows on stderr what it will upload, and "
        "asks; prints the address of the commit on stdout.",
    )
    _add_source(parser)
    parser.add_argument("repo", metavar="ORG/NAME", help="the repository; made where it is missing")
    parser.add_argument("--private", action="store_true", help="make a missing repository private")
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--branch", "--revision", default="main", metavar="NAME", help="branch to write to (default main)"
    )
    where.add_argument("--pr", action="store_true", help="open a pull request instead of changing the branch")
    parser.add_argument(
        "--exclude", action="append", default=[], metavar="PATTERN", help="leave these files of the folder out"
    )
    parser.add_argument("--message", default="Upload model with clip-hub", help="of the commit")
    parser.add_argument("--dry-run", action="store_true", help="show the files and stop; the Hub is not asked anything")
    parser.add_argument("--yes", "-y", action="store_true", help="do not ask")
    parser.set_defaults(action=_push)


def _add_card(commands: Any) -> None:
    parser = commands.add_parser(
        "card",
        help="write the model card of a folder without uploading anything",
        description="Write the card that `clip-hub push` would write, to look at it and to complete it: a README.md in "
        "the folder is what `push` publishes.",
    )
    _add_source(parser)
    parser.add_argument("repo", metavar="ORG/NAME", help="the repository that the card is for")
    parser.add_argument(
        "--output",
        "-o",
        metavar="FILE",
        help="write to FILE, and the figures to figures/ beside it (default: print it)",
    )
    parser.set_defaults(action=_card)


def _add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="FOLDER", help="a bundle, a training run's folder, or a file of weights")
    parser.add_argument("--model", metavar="NAME", help="the architecture, for a file that does not say it")
    parser.add_argument("--results", metavar="DIR", help="records of clip-eval (default: eval/ inside FOLDER)")
    card = parser.add_argument_group("what the card says, and no file does")
    card.add_argument("--title", default="", help="default: the repository's name")
    card.add_argument("--summary", default="", metavar="TEXT", help="what this model is")
    card.add_argument(
        "--licence", "--license", default="", metavar="NAME", help="as the Hub writes it: mit, apache-2.0 ..."
    )
    card.add_argument("--training-data", default="", metavar="TEXT", help="what it was trained on, in words")
    card.add_argument(
        "--language", action="append", default=[], metavar="CODE", help="of the captions, as en; repeatable"
    )
    card.add_argument("--authors", default="", metavar="TEXT")
    card.add_argument("--acknowledgements", default="", metavar="TEXT")


def _description(options: argparse.Namespace) -> Description:
    return Description(
        title=options.title,
        summary=options.summary,
        licence=options.licence,
        training_data=options.training_data,
        languages=tuple(options.language),
        authors=options.authors,
        acknowledgements=options.acknowledgements,
    )


def _push(options: argparse.Namespace) -> int:
    def confirm(plan: Plan) -> bool:
        print(describe(plan), file=sys.stderr)
        if options.yes:
            return True
        print(f"Upload to {plan.repo}? [y/N] ", end="", file=sys.stderr, flush=True)
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    if not (options.yes or options.dry_run or sys.stdin.isatty()):
        raise ConfigError("Nobody is there to ask; pass --yes to upload this, or --dry-run to look at it only.")
    description = _description(options)
    require_repository(options.repo)
    check_source(options.folder, options.model, options.results)
    print(f"Reading {options.folder} and writing its layouts ...", file=sys.stderr)
    done = push(
        options.folder,
        options.repo,
        model=options.model,
        results=options.results,
        description=description,
        exclude=options.exclude,
        private=options.private,
        branch=options.branch,
        pull_request=options.pr,
        dry_run=options.dry_run,
        message=options.message,
        confirm=confirm,
    )
    if options.dry_run:
        print(describe(done.plan), file=sys.stderr)
        return 0
    if done.unchanged:
        print(f"Nothing to upload: branch {options.branch} of {options.repo} has all of it already.", file=sys.stderr)
    if done.url is None:
        print("Nothing was uploaded.", file=sys.stderr)
        return 1
    print(done.url)
    return 0


def _card(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="clip-hub-") as scratch:
        facts, figures = write_facts(
            options.folder,
            options.repo,
            Path(scratch),
            model=options.model,
            results=options.results,
            description=_description(options),
        )
        text = write_card(facts)
        if options.output is None:
            print(text, end="")
            return
        target = Path(options.output)
        if target.exists():
            raise ConfigError(f"{target} is there already, perhaps with somebody's words in it; move it away first.")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        for name, file in figures.items():
            (target.parent / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(file, target.parent / name)
        print(target)


def describe(plan: Plan) -> str:
    """A plan as lines for a person."""
    kind = "private" if plan.private else "public"
    known = {None: f"{kind} where it has to be made", True: f"a new {kind} repository", False: f"a {kind} repository"}
    where = "a pull request" if plan.pull_request else f"branch {plan.branch}"
    lines = [f"{plan.repo}, {where}: {known[plan.creates]}"]
    width = max(len(file.name) for file in plan.files)
    lines += [f"  {file.state:<9} {file.name:<{width}} {_size(file.size):>9}".rstrip() for file in plan.files]
    lines += [f"  {'removed':<9} {name}" for name in plan.removed]
    lines.append(f"{len(plan.files)} files, {_size(plan.size)}")
    lines += [f"{layout}: {file}" for layout, file in plan.layouts.items()]
    lines += [f"{layout}: not written. {why}" for layout, why in plan.missing.items()]
    if plan.in_card:
        lines.append(f"In the card, and not uploaded themselves: {listed(plan.in_card, 6)}")
    if plan.left_out:
        lines.append(f"Not uploaded: {listed(_grouped(plan.left_out), 6)}")
    return "\n".join(lines)


def _grouped(names: Sequence[str]) -> list[str]:
    """Names, with those of a folder of many as the folder: "eval/digits.images/ (12 files)"."""
    counts = Counter(name.rpartition("/")[0] for name in names)
    told = (
        f"{folder}/ ({counts[folder]} files)" if folder and counts[folder] > 2 else name
        for name, folder in ((name, name.rpartition("/")[0]) for name in names)
    )
    return list(dict.fromkeys(told))


def _size(count: int) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000  # type: ignore[assignment]
    return f"{count:.1f} GB"
