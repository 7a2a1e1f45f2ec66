"""The command `clip-eval`: build a data set, run the evaluation, write the report."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from clip_core import command
from clip_core.errors import ConfigError, StorageError
from clip_eval.__about__ import __version__

if TYPE_CHECKING:
    from clip_eval.records import Record
    from clip_eval.wds import WdsDataset

__all__ = ["main", "make_parser"]

_EXAMPLES = """\
examples:
  clip-eval build digits --output data
  clip-eval run data/digits data/digit_scenes --model runs/demo/bundle --output results
  clip-eval report --results results --training runs/demo --output report.html
"""


def make_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(
        prog="clip-eval",
        description="Zero-shot classification and retrieval scores for CLIP models, with 95 % intervals.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"clip-eval {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    build = commands.add_parser("build", help="write a data set to disk", description="Writes a data set to disk.")
    sets = build.add_subparsers(dest="dataset", metavar="DATASET", required=True)
    digits = sets.add_parser(
        "digits",
        help="scikit-learn's handwritten digits: training shards, held-out digits and two-digit scenes",
        description="Writes OUTPUT/train (pictures with captions), OUTPUT/digits (360 held-out scans, ten classes) and "
        "OUTPUT/digit_scenes (200 held-out scenes of two digits, one caption each). Needs no network.",
    )
    digits.add_argument("--output", required=True, type=Path, metavar="DIR", help="a new or empty folder")
    digits.add_argument(
        "--train-samples", type=int, default=20_000, metavar="N", help="training pictures (%(default)s)"
    )
    digits.add_argument("--seed", type=int, default=0, metavar="N", help="of the training pictures (%(default)s)")
    digits.set_defaults(action=_build_digits)

    run = commands.add_parser(
        "run",
        help="evaluate a model on data set folders",
        description="Evaluates a model on each data set folder (wds layout): zero-shot classification or retrieval, as "
        "the folder says. Prints a table and writes one JSON record per data set.",
    )
    run.add_argument("datasets", nargs="+", type=Path, metavar="DATASET", help="folder with nshards.txt and tars")
    run.add_argument(
        "--model",
        required=True,
        metavar="MODEL",
        help='a bundle folder, or a name such as "ViT-B-32:laion2b_s34b_b79k"',
    )
    run.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder for the records")
    run.add_argument("--split", default="test", help="which split to read (%(default)s)")
    run.add_argument("--batch-size", type=int, default=64, metavar="N", help="images encoded at once (%(default)s)")
    run.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps, auto (%(default)s)")
    run.add_argument("--workers", type=int, default=1, metavar="N", help="threads that decode images (%(default)s)")
    run.add_argument(
        "--allow-duplicate-classes",
        action="store_true",
        help="accept class names that occur twice, as ImageNet's do; their ties are in the record",
    )
    run.add_argument("--dry-run", action="store_true", help="check the data sets, say what would be read, and stop")
    run.set_defaults(action=_run)

    report = commands.add_parser(
        "report",
        help="one HTML page from the records",
        description="Writes one self-contained HTML page: scores with intervals, tables, pictures with their best "
        "captions and, given a training run, its loss curve.",
    )
    report.add_argument("--results", required=True, type=Path, metavar="DIR", help="the folder that `run` wrote")
    report.add_argument("--training", type=Path, metavar="DIR", help="a run folder of clip-train")
    report.add_argument("--output", required=True, type=Path, metavar="FILE", help="the page, report.html")
    report.add_argument("--title", default="CLIP evaluation", help="heading of the page (%(default)s)")
    report.set_defaults(action=_report)

    for parser_ in (digits, run, report):
        parser_.add_argument("--quiet", action="store_true", help="no progress bars")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `clip-eval`; returns the exit code."""
    arguments = make_parser().parse_args(argv)
    return command.run(lambda: arguments.action(arguments), "clip-eval")


def _build_digits(arguments: argparse.Namespace) -> None:
    from clip_eval.datasets.digits import build_digits

    folder = build_digits(
        arguments.output,
        train_samples=arguments.train_samples,
        seed=arguments.seed,
        progress=not arguments.quiet,
    )
    for name in ("train", "digits", "digit_scenes"):
        print(folder / name)


def _run(arguments: argparse.Namespace) -> None:
    from clip_eval.wds import open_dataset

    datasets = [
        open_dataset(folder, arguments.split, allow_duplicate_classnames=arguments.allow_duplicate_classes)
        for folder in arguments.datasets
    ]
    names = [dataset.name for dataset in datasets]
    if len(set(names)) < len(names):
        raise ConfigError(
            f"Two data set folders share a name ({', '.join(names)}); their records would be the same file."
        )
    if arguments.dry_run:
        for dataset in datasets:
            print(_describe(dataset))
        return

    _check_writable(arguments.output)

    import clip_hub
    from clip_core.device import resolve_device
    from clip_eval.records import model_facts
    from clip_eval.suite import evaluate

    bundle = clip_hub.load(arguments.model, device=resolve_device(arguments.device))
    facts = model_facts(bundle)
    for dataset in datasets:
        record = evaluate(
            bundle,
            dataset,
            model_name=_model_name(arguments.model),
            batch_size=arguments.batch_size,
            workers=arguments.workers,
            progress=not arguments.quiet,
            facts=facts,
        )
        path = record.save(arguments.output)
        print(_table(record))
        print(f"record: {path}\n")


def _check_writable(folder: Path) -> None:
    """Make `folder` and see that a file can be written there, before hours of evaluation rather than after."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise StorageError(f"--output {folder} cannot be written ({error.strerror}); choose another folder.") from error


def _report(arguments: argparse.Namespace) -> None:
    from clip_eval.report import write_report

    print(write_report(arguments.results, arguments.output, training=arguments.training, title=arguments.title))


def _model_name(model: str) -> str:
    """A name as it was given; of a folder its last two parts, because one called "bundle" says little."""
    path = Path(model)
    return "/".join(path.resolve().parts[-2:]).lstrip("/") if path.exists() else model


def _describe(dataset: WdsDataset) -> str:
    shards = len({sample.shard for sample in dataset.samples})
    if dataset.kind == "classification":
        contents = f"{len(dataset.classnames)} classes, {len(dataset.templates)} prompts each"
    else:
        contents = f"{sum(map(len, dataset.captions))} captions"
    return f"{dataset.folder}: {dataset.kind}, {len(dataset.samples)} images in {shards} shard(s), {contents}"


def _table(record: Record) -> str:
    """The metrics of a record as aligned text: name, value, 95 % interval, number of queries."""
    rows = [("metric", "value", "95 % interval", "N")]
    for name, metric in record.result.metrics.items():
        form = "{:.1f}" if name.endswith("rank") else "{:.4f}"
        interval = f"{form.format(metric.low)} - {form.format(metric.high)}"
        rows.append((name, form.format(metric.value), interval, str(metric.n)))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        f"{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]:>{widths[3]}}".rstrip()
        for row in rows
    ]
    head = f"{record.dataset.name} ({record.result.task.replace('_', ' ')})"
    if record.excluded:
        head += f", {len(record.excluded)} of {len(record.dataset.samples)} images left out: they do not decode"
    ties = {name: share for name, share in record.result.ties.items() if share > 0}
    notes = [f"ties: {share:.1%} of the {name} queries; the record has the bounds" for name, share in ties.items()]
    return "\n".join([head, *lines, *notes])
