"""The subcommands of `clip-hub` that work on weights: soup, interpolate, ema, convert, verify, diff."""

from __future__ import annotations

import argparse
import functools
import json
import sys
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from clip_core.building import Precision
    from clip_hub.comparison import Difference

__all__ = ["add"]

_WHAT = "a bundle or another checkpoint folder, a file, MODEL:FILE, MODEL:TAG or org/name"
_SHOWN = 10


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the subcommands."""
    fetched = argparse.ArgumentParser(add_help=False)
    fetched.add_argument(
        "--cache-dir", metavar="DIR", help="where downloads are kept (default: huggingface_hub's cache)"
    )
    written = argparse.ArgumentParser(add_help=False)
    written.add_argument("--dtype", choices=("fp32", "bf16", "fp16"), help="of the result (default: as it is stored)")
    written.add_argument("--overwrite", action="store_true", help="replace what this command wrote there before")
    written.add_argument(
        "--progress",
        action=argparse.BooleanOptionalAction,
        help="progress bar on stderr (default: where stderr is a terminal)",
    )
    out = argparse.ArgumentParser(add_help=False)
    out.add_argument("-o", "--output", required=True, metavar="DIR", help="the bundle to write")

    soup = commands.add_parser(
        "soup",
        parents=[out, written, fetched],
        help="the average of several checkpoints of one model",
        description="Average checkpoints of one architecture and preprocessing, in float32, piece by piece from disk; "
        "prints the folder of the bundle. The scale of the logits is averaged as it is stored, as its logarithm.",
        epilog='Greedy: clip-hub soup runs/*/bundle -o soup --greedy --eval-command "python score.py {}"',
    )
    soup.add_argument("checkpoint", nargs="+", help=_WHAT)
    soup.add_argument(
        "--weights", nargs="+", type=float, metavar="W", help="one for each; only their ratios count (default: equal)"
    )
    soup.add_argument(
        "--greedy", action="store_true", help="take a checkpoint in only if the score of the average does not fall"
    )
    soup.add_argument(
        "--eval-command",
        metavar="COMMAND",
        help="for --greedy: prints a score as its last line, higher is better; {} is the folder of the candidate. "
        "Started without a shell",
    )
    soup.set_defaults(action=_soup)

    between = commands.add_parser(
        "interpolate",
        parents=[out, written, fetched],
        help="models on the line between two (WiSE-FT)",
        description="Write (1 - alpha) * FIRST + alpha * SECOND, for a fine-tuned SECOND the way to keep what FIRST "
        "knew (Wortsman et al. 2022, WiSE-FT); prints the folders.",
    )
    between.add_argument("first", help=_WHAT)
    between.add_argument("second", help="another of the same model")
    between.add_argument(
        "--alpha",
        nargs="+",
        type=float,
        default=[0.5],
        metavar="A",
        help="0 is the first, 1 the second (default 0.5); several write DIR/alpha-A each",
    )
    between.set_defaults(action=_interpolate)

    ema = commands.add_parser(
        "ema",
        parents=[out, written],
        help="the averaged weights of a training checkpoint",
        description="Write the moving average that a training checkpoint holds beside its weights as a bundle.",
    )
    ema.add_argument("checkpoint", help="MODEL:FILE, say ViT-B-32:epoch_30.pt")
    ema.set_defaults(action=_ema)

    convert = commands.add_parser(
        "convert",
        parents=[written, fetched],
        help="write a checkpoint in another library's layout",
        description="Write a checkpoint in another layout; prints the folder.",
    )
    convert.add_argument("checkpoint", help=_WHAT)
    convert.add_argument("output", metavar="DIR", help="the folder to write")
    convert.add_argument(
        "--to",
        required=True,
        choices=("bundle", "open_clip", "transformers", "timm"),
        help="timm takes the image tower alone",
    )
    convert.add_argument(
        "--ema",
        action=argparse.BooleanOptionalAction,
        help="of a file that holds weights and their moving average: take the average, or not",
    )
    convert.set_defaults(action=_convert)

    verify = commands.add_parser(
        "verify",
        parents=[fetched],
        help="is a checkpoint whole and what it says it is?",
        description="Check hash, shapes, values, scale and features of a checkpoint. Exit code 1 where something is "
        "wrong. What is printed as fingerprint is the same on every machine, within 0.001.",
    )
    verify.add_argument("checkpoint", help=_WHAT)
    verify.add_argument("--sha256", metavar="HEX", help="what its file should have")
    verify.add_argument("--no-features", action="store_true", help="do not run the model")
    verify.add_argument("--json", action="store_true", help="the report as an object in JSON")
    verify.set_defaults(action=_verify)

    diff = commands.add_parser(
        "diff",
        parents=[fetched],
        help="how do two checkpoints differ?",
        description="Compare configurations, tensors and features of two checkpoints, of any layouts. Exit code 1 "
        "where they differ in what changes features, or in a weight.",
    )
    diff.add_argument("first", help=_WHAT)
    diff.add_argument("second", help="another")
    diff.add_argument("--no-features", action="store_true", help="do not run the models")
    diff.add_argument("--json", action="store_true", help="all of it as an object in JSON")
    diff.set_defaults(action=_diff)


def _writing(options: argparse.Namespace) -> dict[str, Any]:
    progress = sys.stderr.isatty() if options.progress is None else options.progress
    return {"dtype": cast("Precision | None", options.dtype), "overwrite": options.overwrite, "progress": progress}


def _soup(options: argparse.Namespace) -> None:
    from clip_core.errors import ConfigError
    from clip_hub.greedy import greedy_soup
    from clip_hub.soup import soup

    if options.greedy != (options.eval_command is not None):
        raise ConfigError("--greedy and --eval-command belong together; give both or neither.")
    common = {"cache_dir": options.cache_dir, **_writing(options)}
    if not options.greedy:
        print(soup(options.checkpoint, options.output, weights=options.weights, **common))
        return
    if options.weights is not None:
        raise ConfigError("--weights and --greedy exclude each other; a greedy soup weighs what it keeps equally.")
    said = functools.partial(print, file=sys.stderr, flush=True)
    done = greedy_soup(options.checkpoint, options.output, options.eval_command, report=said, **common)
    print(f"{done.score:g}\tthe soup of {len(done.kept)} of {len(done.scores)}", file=sys.stderr)
    print(done.folder)


def _interpolate(options: argparse.Namespace) -> None:
    from clip_hub.soup import interpolate

    common = {"cache_dir": options.cache_dir, **_writing(options)}
    for folder in interpolate(options.first, options.second, options.output, alphas=options.alpha, **common):
        print(folder)


def _ema(options: argparse.Namespace) -> None:
    from clip_hub.soup import extract_ema

    print(extract_ema(options.checkpoint, options.output, **_writing(options)))


def _convert(options: argparse.Namespace) -> None:
    from clip_hub.conversion import convert

    common = {"cache_dir": options.cache_dir, "ema": options.ema, **_writing(options)}
    print(convert(options.checkpoint, options.output, options.to, **common))


def _verify(options: argparse.Namespace) -> int:
    from clip_hub.in_flags import in_flags
    from clip_hub.verification import verify

    report = verify(
        options.checkpoint, sha256=options.sha256, features=not options.no_features, cache_dir=options.cache_dir
    )
    if options.json:
        print(json.dumps(report.to_json(), indent=1))
    else:
        for check in report.checks:
            print(f"{check.result:<7}  {check.what}: {in_flags(check.message, vars(options))}")
    return 0 if report.ok else 1


def _diff(options: argparse.Namespace) -> int:
    from clip_hub.comparison import compare

    found = compare(options.first, options.second, features=not options.no_features, cache_dir=options.cache_dir)
    # JSON has no NaN; what is none stands there as null.
    print(json.dumps(_plain(found.to_json()), indent=1) if options.json else "\n".join(_lines(found)))
    return 0 if found.same else 1


def _lines(found: Difference) -> list[str]:
    lines = [f"config    {key}: {ours!r} -> {theirs!r}" for key, (ours, theirs) in found.config.items()]
    lines += [f"(config)  {key}: {ours!r} -> {theirs!r}" for key, (ours, theirs) in found.other_fields.items()]
    lines += [f"missing   {name}" for name in found.missing[:_SHOWN]] + _rest("missing", len(found.missing))
    lines += [f"added     {name}" for name in found.added[:_SHOWN]] + _rest("added", len(found.added))
    lines += [f"shape     {name}: {ours} -> {theirs}" for name, (ours, theirs) in found.shapes.items()]
    for entry in found.changed[:_SHOWN]:
        dtypes = f", {entry.dtypes[0]} -> {entry.dtypes[1]}" if entry.dtypes[0] != entry.dtypes[1] else ""
        lines.append(f"changed   {entry.name}: max {entry.largest:.3g}, relative {entry.relative:.3g}{dtypes}")
    lines += _rest("changed", len(found.changed))
    lines.append(f"weights   {len(found.changed)} of {found.compared} tensors differ, cosine {found.cosine:.6f}")
    for kind, cosine in (("image", found.image_cosine), ("text", found.text_cosine)):
        if cosine is not None:
            lines.append(f"features  {kind}: smallest cosine of four {cosine:.6f}")
    return lines if not found.same else [*lines, "same      one model, one set of weights"]


def _rest(what: str, count: int) -> list[str]:
    return [f"{what:<9} and {count - _SHOWN} more; --json lists all"] if count > _SHOWN else []


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if not isinstance(value, float) or abs(value) < float("inf") else None
