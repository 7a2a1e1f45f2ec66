"""The command `clip-train`: trains; `show` prints the resolved configuration, `recipes` the published procedures.

`preflight` tries what a run needs, `bench-data` how fast its data can be read, and `report` writes a page about a run.

Results go to stdout. What this room leaves out: the flags (`flags`) and what they mean (`config`).
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clip_train.flags import Given

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with `arguments` (default: the process's); returns the exit code, 2 for a user's mistake."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    _let_waiting_threads_sleep()
    # Imported here because torch reads those settings once, when it is loaded.
    from clip_core import command

    return command.run(lambda: _with_own_codes(words), "clip-train")


def _with_own_codes(words: list[str]) -> int | None:
    from clip_core.errors import ClipError

    try:
        _dispatch(words)
    except ClipError as error:
        # Beside a user's mistake: see `exit_codes`.
        code: int | None = getattr(error, "exit_code", None)
        if code is None:
            raise
        print(f"clip-train: {error}", file=sys.stderr)
        return code
    return None


def _let_waiting_threads_sleep() -> None:
    """Threads of torch that wait for each other shall soon give their core to whoever can use it.

    By default they spin for milliseconds. With data workers, or anything else, on the same cores that made training
    on a CPU six times slower (2 threads on 2 shared cores: 33 instead of 195 samples/s). A setting of the user wins.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def _dispatch(words: list[str]) -> None:
    from clip_train.flags import build_parser, read

    command = words[0] if words else ""
    if command == "show":
        return _show(words[1:])
    if command == "report":
        return _report(words[1:])
    if command == "recipes":
        return _list_recipes(words[1:])
    if command == "preflight":
        return _preflight(words[1:])
    if command == "bench-data":
        return _bench_data(words[1:])
    if command == "recipe":
        words = ["--recipe", *words[1:]]
    if not words:
        build_parser().print_help(sys.stderr)
    given = read(words)
    config, output = given.resolve(), given.output
    from clip_eval.processes import find_place
    from clip_train.run import train

    progress = sys.stderr.isatty() if output.progress is None else output.progress
    handler = _BarHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    root = logging.getLogger()
    others, root.handlers = root.handlers, [handler]
    try:
        _say_first(given)
        result = train(config, progress=progress)
    finally:
        root.handlers = others
    # Of several processes one says it.
    if find_place().rank != 0:
        return
    print(
        f"run {result.folder}\nbundle {result.bundle}\n"
        f"loss {result.loss:.5g} after {result.steps} steps and {result.samples_seen} samples, "
        f"{result.samples_per_second:.0f} samples/s; skipped {result.skipped_samples} samples and "
        f"{result.skipped_steps} steps; {result.truncated_captions} captions truncated"
    )


def _show(words: list[str]) -> None:
    from clip_train.config.files import to_toml
    from clip_train.flags import read

    # Words of this command alone: --json is a beginning of flags of open_clip.
    form = next((word for word in words if word in ("--toml", "--json")), "--json")
    given = read(_with_recipe([word for word in words if word not in ("--toml", "--json")]))
    config = given.resolve()
    if form == "--toml":
        print(f"# sha256 {config.sha256}\n{to_toml(config, given.origins)}", end="")
    else:
        print(json.dumps(config.to_json(), indent=2, allow_nan=False))


def _say_first(given: Given) -> None:
    from clip_eval.processes import find_place

    place = find_place()
    if place.rank != 0:
        return
    for said in given.not_needed:
        logging.getLogger(__name__).warning("%s", said)
    if given.recipe is not None:
        for remark in given.recipe.remarks(given.fields, place.size):
            logging.getLogger(__name__).warning("recipe %s: %s", given.recipe.name, remark)


def _preflight(words: list[str]) -> None:
    from clip_train.flags import parse
    from clip_train.preflight import fly

    config, _ = parse(_with_recipe(words))
    print("\n".join(fly(config)))


def _with_recipe(words: list[str]) -> list[str]:
    """A first word that is no flag is the name of a recipe; `recipe` may stand before it, as where it is trained."""
    words = words[1:] if words[:1] == ["recipe"] else words
    return words if not words or words[0].startswith("-") else ["--recipe", *words]


def _bench_data(words: list[str]) -> None:
    import argparse

    from tqdm import tqdm

    from clip_train.flags import parse
    from clip_train.measuring.reading import advise_reading, measure_reading

    own = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    own.add_argument("--seconds", type=float, default=10.0)
    given, rest = own.parse_known_args(words)
    config, output = parse(rest)
    wanted = sys.stderr.isatty() if output.progress is None else output.progress
    with tqdm(unit=" samples", desc="reading", disable=not wanted, dynamic_ncols=True) as bar:
        reading = measure_reading(config, seconds=given.seconds, show=bar.update)
    print("\n".join([*reading.lines(), *advise_reading(reading, config)]))


def _report(words: list[str]) -> None:
    import argparse

    from clip_train.report import write_report

    parser = argparse.ArgumentParser(
        prog="clip-train report", description="Write the report of a run, or of two beside each other, as one page."
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="one run folder or two")
    parser.add_argument("-o", "--output", default="report.html", metavar="FILE", help="the page (%(default)s)")
    given = parser.parse_args(words)
    print(write_report(given.runs, given.output))


def _list_recipes(words: list[str]) -> None:
    from clip_train.recipes import NOT_PUBLISHED, RECIPES, find

    for recipe in map(find, words):
        print(f"{recipe.name}: {recipe.summary}")
        for name, value in recipe.fields().items():
            print(f"  {name} = {value!r}")
        processes = f" of {recipe.processes} processes" if recipe.processes else ""
        print(f"  global batch: {recipe.global_batch}{processes}\n  weights: {', '.join(recipe.tags)}")
        print(f"  source: {recipe.source}")
        if recipe.begins_from:
            print(f"  begins from: {recipe.begins_from}, which you have to give")
        if recipe.differs:
            print(f"  differs: {recipe.differs}")
    if not words:
        width = max(map(len, RECIPES))
        print("\n".join(f"{recipe.name:{width}}  {recipe.summary}" for recipe in RECIPES.values()))
        print("\nWithout a published procedure:")
        print("\n".join(f"{name}: {why}" for name, why in NOT_PUBLISHED.items()))


class _BarHandler(logging.Handler):
    """Writes log lines to stderr above a progress bar, if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        tqdm.write(self.format(record), file=sys.stderr)
