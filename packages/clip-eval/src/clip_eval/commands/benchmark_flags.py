"""CLIP_benchmark's flags for `clip-eval eval`: what they are called, which are refused, and what their words stand for.

Where a flag has no sense here, it is refused or said to change nothing; none is ignored in silence.
"""

from __future__ import annotations

import argparse
import itertools
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clip_core.errors import ConfigError
from clip_eval.records.peers import PEER_TASKS

if TYPE_CHECKING:
    from clip_eval.selection import Selected

__all__ = ["OUTPUT", "add_flags", "check_flags", "datasets_of", "models_of", "per_dataset"]

_log = logging.getLogger(__name__)

_ROOT = "root"
OUTPUT = "{dataset}_{pretrained}_{model}_{language}_{task}.json"
"""How CLIP_benchmark calls its files, where nothing is said."""
_COLLECTIONS = {
    "openclip_base": (
        ("ViT-B-32-quickgelu", "laion400m_e32"),
        ("ViT-B-32", "laion2b_e16"),
        ("ViT-B-32", "laion2b_s34b_b79k"),
        ("ViT-B-16", "laion400m_e32"),
        ("ViT-B-16-plus-240", "laion400m_e32"),
        ("ViT-L-14", "laion400m_e32"),
        ("ViT-L-14", "laion2b_s32b_b82k"),
        ("ViT-H-14", "laion2b_s32b_b79k"),
        ("ViT-g-14", "laion2b_s12b_b42k"),
    ),
    "openclip_multilingual": (
        ("xlm-roberta-base-ViT-B-32", "laion5b_s13b_b90k"),
        ("xlm-roberta-large-ViT-H-14", "frozen_laion5b_s13b_b90k"),
    ),
    "openai": (
        ("ViT-B-32", "openai"),
        ("ViT-B-16", "openai"),
        ("ViT-L-14", "openai"),
        ("ViT-L-14-336", "openai"),
    ),
}
_REFUSED = {
    "save_clf": "clip-eval keeps the features of prompts instead (--feature_root), so a second run is as quick",
    "load_clfs": "averaging the classifiers of several models is not built; evaluate each model",
    "annotation_file": "captions are read from the data set's own shards; build one with `clip-eval build`",
}
_WITHOUT_EFFECT = {
    "fewshot_epochs": "the probe is solved to its optimum, so there are no epochs",
    "fewshot_lr": "the probe is solved to its optimum, so there is no learning rate",
    "distributed": "the processes that torchrun or srun started share each data set anyway",
    "skip_load": "features that are there already are found anyway",
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Register all of them, and the one that is not of CLIP_benchmark."""
    parser.add_argument("--dataset", nargs="+", default=["cifar10"], help="names, suites, or files with names")
    parser.add_argument("--dataset_root", default=_ROOT, help="folder or address, {dataset} and {dataset_cleaned}")
    parser.add_argument("--split", "--test_split", dest="split", default="test", help="(%(default)s)")
    parser.add_argument("--train_split", nargs="+", default=["train"], help="of each data set (train)")
    validation = parser.add_mutually_exclusive_group()
    validation.add_argument("--val_split", nargs="+", help="of each data set, for the linear probe")
    validation.add_argument("--val_proportion", nargs="+", type=float, help="part of the training split instead")
    parser.add_argument("--model", nargs="+", default=["ViT-B-32-quickgelu"], help="architectures")
    parser.add_argument("--pretrained", nargs="+", default=["laion400m_e32"], help="tags or weight files")
    parser.add_argument(
        "--pretrained_model",
        nargs="+",
        default=[],
        metavar="MODEL,TAG",
        help="pairs, instead of --model and --pretrained; openai, openclip_base, openclip_multilingual, openclip_all, "
        "or a file with one pair per line",
    )
    parser.add_argument("--task", default="auto", choices=(*PEER_TASKS.values(), "auto"), help="(%(default)s)")
    parser.add_argument(
        "--no_amp",
        dest="amp",
        action="store_false",
        help="float32 on a GPU too, instead of float16 autocast",
    )
    parser.add_argument("--num_workers", type=int, default=4, help="threads that decode images (%(default)s)")
    parser.add_argument("--recall_k", type=int, nargs="+", default=[5], help="retrieval (5)")
    parser.add_argument("--fewshot_k", type=int, default=-1, help="linear probe: pictures of each class; -1 is all")
    parser.add_argument("--fewshot_epochs", type=int, help="changes nothing here")
    parser.add_argument("--fewshot_lr", type=float, help="changes nothing here")
    parser.add_argument("--skip_load", action="store_true", help="changes nothing here")
    parser.add_argument("--distributed", action="store_true", help="changes nothing here")
    parser.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    parser.add_argument("--batch_size", type=int, default=64, help="(%(default)s)")
    parser.add_argument("--normalize", type=_true_or_false, default=True, help="only True is possible here")
    parser.add_argument("--model_cache_dir", help="where weights are kept")
    parser.add_argument("--feature_root", default="features", help="where features are kept (%(default)s)")
    parser.add_argument("--annotation_file", default="", help="refused: captions are read from the shards")
    parser.add_argument(
        "--custom_classname_file",
        help="JSON with the class names of each data set; names may occur twice, and their images are ties",
    )
    parser.add_argument("--custom_template_file", help="JSON with the prompts of each data set")
    parser.add_argument("--dump_classnames", action="store_true", help="write the class names into the file")
    parser.add_argument("--dump_templates", action="store_true", help="write the templates into the file")
    parser.add_argument("--language", nargs="+", default=["en"], help="(en)")
    parser.add_argument("--output", default=OUTPUT, help="(%(default)s)")
    parser.add_argument("--quiet", dest="verbose", action="store_false", help="say less")
    parser.add_argument("--save_clf", help="refused: features of prompts are kept anyway")
    parser.add_argument("--load_clfs", nargs="+", default=[], help="refused: not built")
    parser.add_argument("--skip_existing", action="store_true", help="not what has its file already")
    parser.add_argument("--model_type", default="open_clip", help="only open_clip")
    parser.add_argument("--wds_cache_dir", help="where fetched data sets are kept")
    parser.add_argument("--device", default="auto", help="not of CLIP_benchmark: cpu, cuda ... (%(default)s)")


def _true_or_false(text: str) -> bool:
    """CLIP_benchmark takes every word for True, "False" too."""
    if text.lower() not in ("true", "false", "1", "0"):
        raise argparse.ArgumentTypeError(f"{text!r}: allowed: True or False")
    return text.lower() in ("true", "1")


def check_flags(arguments: argparse.Namespace) -> None:
    """Raise `ConfigError` for what is not taken, and say what changes nothing."""
    for name, reason in _REFUSED.items():
        if getattr(arguments, name):
            raise ConfigError(f"--{name} is not taken: {reason}.")
    if arguments.model_type != "open_clip":
        raise ConfigError(f"--model_type {arguments.model_type}: allowed: open_clip, whose names and files are read.")
    if not arguments.normalize:
        raise ConfigError("--normalize False: features have length 1 here in every task; leave the flag out.")
    for name, reason in _WITHOUT_EFFECT.items():
        if getattr(arguments, name) not in (None, False):
            _log.warning("--%s changes nothing: %s", name, reason)


def datasets_of(arguments: argparse.Namespace) -> tuple[Selected, ...]:
    """What --dataset and --dataset_root mean."""
    from clip_eval.selection import select

    root = arguments.dataset_root
    if root == _ROOT and not Path(root).is_dir():
        root = None  # the default, where nothing was ever kept: fetched from the Hub, as CLIP_benchmark downloads
    return select(arguments.dataset, root=root)


def models_of(arguments: argparse.Namespace) -> list[tuple[str, str]]:
    """Pairs (architecture, tag or file), each once."""
    return list(dict.fromkeys(_pairs(arguments)))


def _pairs(arguments: argparse.Namespace) -> Iterator[tuple[str, str]]:
    if not arguments.pretrained_model:
        yield from itertools.product(arguments.model, arguments.pretrained)
        return
    for word in arguments.pretrained_model:
        if Path(word).is_file():
            lines = Path(word).read_text(encoding="utf-8").splitlines()
            yield from (_pair(line) for line in lines if line.strip())
        elif word == "openclip_all":
            import clip_hub

            yield from clip_hub.list_pretrained()
        elif word in _COLLECTIONS:
            yield from _COLLECTIONS[word]
        else:
            yield _pair(word)


def _pair(text: str) -> tuple[str, str]:
    model, comma, pretrained = text.strip().partition(",")
    if not comma:
        known = ", ".join((*_COLLECTIONS, "openclip_all"))
        raise ConfigError(f"--pretrained_model {text!r}: allowed: MODEL,TAG, a file of such lines, or {known}.")
    return model, pretrained


def per_dataset(values: Sequence[Any] | None, count: int, flag: str) -> list[Any]:
    """The value of `flag` for each of `count` data sets, which has one for all or one for each."""
    if values is None:
        return [None] * count
    if len(values) not in (1, count):
        raise ConfigError(f"{flag} has {len(values)} values for {count} data sets; give one, or one for each.")
    return list(values) * (count if len(values) == 1 else 1)
