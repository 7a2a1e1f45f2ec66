"""`clip-eval build`: writes data sets to disk in the `wds_*` layout, from what a user has."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clip_core.errors import ConfigError

if TYPE_CHECKING:
    from clip_eval.building import Source

__all__ = ["NAMES", "add"]

NAMES = (
    "digits",
    "quick",
    "photos",
    "folder",
    "table",
    "torchvision",
    "huggingface",
    "sugar-crepe",
    "winoground",
    "winogavil",
)
"""What may stand behind `clip-eval build`."""

_EXAMPLES = """\
examples:
  clip-eval build digits --output data
  clip-eval build quick --output data/quick
  clip-eval build folder pictures/test --output data/animals
  clip-eval build table labels.csv --image path --label class --output data/animals
  clip-eval build table captions.tsv --image path --caption title --output data/captions
  clip-eval build torchvision CIFAR10 --root downloads --output data/cifar10
  clip-eval build huggingface uoft-cs/cifar10 --output data/cifar10
  clip-eval build sugar-crepe swap_att.json swap_obj.json --images val2017 --output data/sugar_crepe
"""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Registers `build` and its data sets."""
    build = commands.add_parser(
        "build",
        help="write a data set to disk",
        description="Writes a data set to disk, whole or not at all, in the layout that `run` and CLIP_benchmark read.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sets = build.add_subparsers(dest="dataset", metavar="SOURCE", required=True)
    _add_digits(sets)
    _add_small(sets)
    _add_folder(sets)
    _add_table(sets)
    _add_torchvision(sets)
    _add_huggingface(sets)
    _add_annotations(sets)


def _add_digits(sets: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
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
    digits.add_argument("--quiet", action="store_true", help="no progress bars")
    digits.set_defaults(action=_build_digits)


def _add_small(sets: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    quick = sets.add_parser(
        "quick",
        help="the suite `quick`: a small set for every task, of scikit-learn's digits",
        description="Writes seven folders below OUTPUT; `clip-eval list --suite quick` says what each one is. Needs no "
        "network. `clip-eval run quick` writes them by itself where they are missing.",
    )
    photos = sets.add_parser(
        "photos",
        help="twenty real pictures with a caption each, of scikit-image and scikit-learn",
        description="Writes OUTPUT/photos. Needs no network, but pip install 'clip-eval[photos]'.",
    )
    for parser in (quick, photos):
        parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="a new or empty folder")
    quick.set_defaults(action=_build_quick)
    photos.set_defaults(action=_build_photos)


def _add_folder(sets: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    folder = sets.add_parser(
        "folder",
        help="a folder of images with one sub-folder for each class",
        description="One class for each sub-folder, in the order of their names. The images' own bytes are kept.",
    )
    folder.add_argument("folder", type=Path, metavar="FOLDER")
    _add_common(folder, classes=True)
    folder.set_defaults(action=_build_folder)


def _add_table(sets: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    table = sets.add_parser(
        "table",
        help="a CSV, TSV, JSON lines or parquet file",
        description="One row for each image, with its path (or, in parquet, its bytes) and its label, labels or "
        "captions. Rows with the same path and captions are one image.",
    )
    table.add_argument("table", type=Path, metavar="TABLE", help=".csv, .tsv, .jsonl or .parquet")
    table.add_argument("--image", default="image", metavar="COLUMN", help="paths or bytes (%(default)s)")
    table.add_argument("--label", metavar="COLUMN", help="the class: its name, or its number with --classnames")
    table.add_argument(
        "--labels", metavar="COLUMN", help="several classes: a list, or names with the separator between"
    )
    table.add_argument("--caption", action="append", default=[], metavar="COLUMN", help="may be given several times")
    table.add_argument("--metadata", action="append", default=[], metavar="COLUMN", help="numbers about the image")
    table.add_argument("--separator", default="|", metavar="TEXT", help="between several labels (%(default)s)")
    table.add_argument("--images", type=Path, metavar="DIR", help="where paths begin (the table's folder)")
    _add_common(table, classes=True)
    table.set_defaults(action=_build_table)


def _add_torchvision(sets: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    torchvision = sets.add_parser(
        "torchvision",
        help="a classification set of torchvision.datasets",
        description="Reads --split, or train= where the class has that. Pictures that are in no file are stored "
        "without loss.",
    )
    torchvision.add_argument("name", metavar="CLASS", help="such as CIFAR10")
    torchvision.add_argument("--root", type=Path, default=Path("data"), metavar="DIR", help="its files (%(default)s)")
    torchvision.add_argument("--download", action="store_true", help="let torchvision fetch what is missing")
    torchvision.add_argument("--options", default="{}", metavar="JSON", help="further arguments of the class")
    _add_common(torchvision, classes=True)
    torchvision.set_defaults(action=_build_torchvision)


def _add_huggingface(sets: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    huggingface = sets.add_parser(
        "huggingface",
        help="a data set of Hugging Face's datasets",
        description="On disk (save_to_disk), a folder of files, or a name on the Hub, which is then downloaded. Needs "
        "pip install 'clip-eval[huggingface]'.",
    )
    huggingface.add_argument("path", metavar="PATH", help="a folder or org/name")
    huggingface.add_argument("--config", metavar="NAME", help="which configuration of the set")
    huggingface.add_argument("--revision", metavar="COMMIT", help="of the repository")
    huggingface.add_argument("--image", metavar="COLUMN", help="default the only one of images")
    huggingface.add_argument("--label", metavar="COLUMN", help="default the only one that names its classes")
    huggingface.add_argument(
        "--caption", action="append", default=[], metavar="COLUMN", help="may be given several times"
    )
    huggingface.add_argument("--read-split", metavar="SPLIT", help="what to read, if --split is another name for it")
    _add_common(huggingface, classes=True)
    huggingface.set_defaults(action=_build_huggingface)


def _add_annotations(sets: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    sugar_crepe = sets.add_parser(
        "sugar-crepe",
        help="SugarCrepe's annotations and COCO's val2017",
        description="Writes OUTPUT/add_att and so on, one data set of caption choice for each file.",
    )
    sugar_crepe.add_argument("annotations", nargs="+", type=Path, metavar="JSON")
    sugar_crepe.add_argument("--images", required=True, type=Path, metavar="DIR", help="the folder val2017")
    _add_common(sugar_crepe)
    sugar_crepe.set_defaults(action=_build_sugar_crepe)
    for name, told in (("winoground", "examples.jsonl, or parquet with images"), ("winogavil", "table of riddles")):
        parser = sets.add_parser(name, help=f"{name}'s {told}", description=f"Reads {name}'s {told}.")
        parser.add_argument("annotations", type=Path, metavar="TABLE", help=".csv, .jsonl or .parquet")
        parser.add_argument(
            "--images", type=Path, metavar="DIR", help="the folder of images, unless the table has them"
        )
        _add_common(parser)
        parser.set_defaults(action=_build_winoground if name == "winoground" else _build_winogavil)


def _add_common(parser: argparse.ArgumentParser, *, classes: bool = False) -> None:
    from clip_eval.building.writing import DEFAULT_TEMPLATES, MAX_COUNT, MAX_SIZE

    parser.add_argument(
        "--output", required=True, type=Path, metavar="DIR", help="new, or with other splits of the set"
    )
    parser.add_argument("--split", default="test", help="name of the split (%(default)s)")
    if classes:
        parser.add_argument(
            "--classnames", type=Path, metavar="FILE", help="one name a line, in the order of the labels"
        )
        parser.add_argument(
            "--templates", type=Path, metavar="FILE", help=f"one prompt with {{c}} a line ({DEFAULT_TEMPLATES[0]})"
        )
        parser.add_argument(
            "--allow-duplicate-classes", action="store_true", help="accept class names that occur twice"
        )
    parser.add_argument(
        "--image-format", choices=("webp", "png"), default="webp", help="of pictures in no file; lossless (%(default)s)"
    )
    parser.add_argument(
        "--max-count", type=int, default=MAX_COUNT, metavar="N", help="samples in a shard (%(default)s)"
    )
    parser.add_argument("--max-size", type=int, default=MAX_SIZE, metavar="N", help="bytes in a shard (%(default)s)")
    for name in ("title", "description", "source", "licence"):
        parser.add_argument(f"--{name}", metavar="TEXT", help="for about.json, which evaluation records carry along")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


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


def _build_quick(arguments: argparse.Namespace) -> None:
    from clip_eval.datasets.quick import QUICK_SETS, build_quick

    folder = build_quick(arguments.output)
    for name in QUICK_SETS:
        print(folder / name)


def _build_photos(arguments: argparse.Namespace) -> None:
    from clip_eval.datasets.photos import build_photos

    print(build_photos(arguments.output) / "photos")


def _build_folder(arguments: argparse.Namespace) -> None:
    from clip_eval.building import image_folder

    _write(image_folder(arguments.folder, **_names(arguments)), arguments)


def _build_table(arguments: argparse.Namespace) -> None:
    from clip_eval.building import table

    source = table(
        arguments.table,
        image=arguments.image,
        label=arguments.label,
        labels=arguments.labels,
        captions=arguments.caption,
        metadata=arguments.metadata,
        separator=arguments.separator,
        images=arguments.images,
        **_names(arguments),
    )
    _write(source, arguments)


def _build_torchvision(arguments: argparse.Namespace) -> None:
    from clip_eval.building import torchvision_dataset

    try:
        options = json.loads(arguments.options)
    except ValueError as error:
        raise ConfigError(f"--options {arguments.options}: not JSON ({error}).") from error
    if not isinstance(options, dict):
        raise ConfigError(f'--options {arguments.options}: must be an object, such as {{"year": "2007"}}.')
    source = torchvision_dataset(
        arguments.name,
        arguments.root,
        split=arguments.split,
        download=arguments.download,
        options=options,
        **_names(arguments),
    )
    _write(source, arguments)


def _build_huggingface(arguments: argparse.Namespace) -> None:
    from clip_eval.building import huggingface_dataset

    source = huggingface_dataset(
        arguments.path,
        split=arguments.read_split or arguments.split,
        config=arguments.config,
        revision=arguments.revision,
        image=arguments.image,
        label=arguments.label,
        captions=arguments.caption,
        **_names(arguments),
    )
    _write(source, arguments)


def _build_sugar_crepe(arguments: argparse.Namespace) -> None:
    from clip_eval.building import sugar_crepe

    for path in arguments.annotations:
        _write(sugar_crepe(path, arguments.images), arguments, arguments.output / path.stem)


def _build_winoground(arguments: argparse.Namespace) -> None:
    from clip_eval.building import winoground

    _write(winoground(arguments.annotations, arguments.images), arguments)


def _build_winogavil(arguments: argparse.Namespace) -> None:
    from clip_eval.building import winogavil

    _write(winogavil(arguments.annotations, arguments.images), arguments)


def _names(arguments: argparse.Namespace) -> dict[str, Sequence[str]]:
    """Class names and templates from the files that are given."""
    from clip_eval.wds.text_files import read_names, read_templates

    found: dict[str, Sequence[str]] = {}
    if arguments.classnames is not None:
        found["classnames"] = read_names(arguments.classnames)
    if arguments.templates is not None:
        found["templates"] = read_templates(arguments.templates)
    return found


def _write(source: Source, arguments: argparse.Namespace, folder: Path | None = None) -> None:
    from clip_eval.building import write_dataset

    about: dict[str, Any] = {
        name: getattr(arguments, name)
        for name in ("title", "description", "source", "licence")
        if getattr(arguments, name) is not None
    }
    print(
        write_dataset(
            folder or arguments.output,
            source,
            split=arguments.split,
            about=about,
            max_count=arguments.max_count,
            max_size=arguments.max_size,
            image_format=arguments.image_format,
            allow_duplicate_classnames=getattr(arguments, "allow_duplicate_classes", False),
            progress=not arguments.quiet,
        )
    )
