"""The options of the sub-commands that run a model, and the encoder that they describe."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from clip_eval.encoder import Encoder
    from clip_eval.processes import Ranks

__all__ = ["add_encoding", "device_of", "feature_root", "make_encoder", "model_label"]

_PRECISIONS = ("fp32", "amp_bf16", "amp", "bf16", "fp16")


def add_encoding(group: argparse._ArgumentGroup) -> None:
    """The options that say how images and texts are encoded."""
    group.add_argument("--batch-size", type=int, default=64, metavar="N", help="images encoded at once (%(default)s)")
    group.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, mps, auto (%(default)s)")
    group.add_argument(
        "--precision",
        choices=_PRECISIONS,
        default="fp32",
        help="of the towers: fp32, autocast to bfloat16 (amp_bf16) or float16 (amp), or weights in bf16 or fp16",
    )
    group.add_argument("--workers", type=int, default=2, metavar="N", help="threads that decode images (%(default)s)")
    group.add_argument("--deterministic", action="store_true", help="features that no batch size changes; slower")


def make_encoder(model: str, arguments: argparse.Namespace, ranks: Ranks) -> Encoder:
    """The model that `model` names, loaded as the options say, on this process's device."""
    import clip_hub
    from clip_eval.encoder import Encoder
    from clip_eval.store import FeatureStore

    device = device_of(arguments.device, ranks)
    short = arguments.precision in ("bf16", "fp16")
    bundle = ranks.together(
        lambda: clip_hub.load(model, device=device, precision=arguments.precision if short else "fp32")
    )
    store = None
    if arguments.features != "none":
        root = feature_root() if arguments.features == "auto" else Path(arguments.features)
        store = FeatureStore(root, dtype=arguments.feature_dtype)
    return Encoder(
        bundle=bundle,
        batch_size=arguments.batch_size,
        workers=arguments.workers,
        progress=not arguments.quiet,
        store=store,
        ranks=ranks,
        precision="pure" if short else arguments.precision,
        deterministic=arguments.deterministic,
    )


def device_of(name: str, ranks: Ranks) -> torch.device:
    """The device that `name` means; of several processes on one machine each has a GPU of its own."""
    from clip_core.device import resolve_device

    device = resolve_device(name)
    if device.type == "cuda" and ":" not in name and ranks.size > 1:
        return resolve_device(f"cuda:{ranks.local_rank}")
    return device


def feature_root() -> Path:
    """Where features are kept unless something else is said."""
    from huggingface_hub.constants import HF_HOME

    return Path(HF_HOME) / "clip-eval" / "features"


def model_label(model: str) -> str:
    """A name as it was given; of a folder its last two parts, because one called "bundle" says little."""
    path = Path(model)
    return "/".join(path.resolve().parts[-2:]).lstrip("/") if path.exists() else model
