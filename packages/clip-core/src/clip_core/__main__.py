"""`python -m clip_core classify`, `embed` and `kernels`: use a model from the command line, with nothing else."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from clip_core.__about__ import __version__
from clip_core.command import run


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and give its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m clip_core",
        description="Use a CLIP bundle (a folder written by clip_core.save or clip-train) on this machine, offline.",
    )
    parser.add_argument("--version", action="version", version=f"clip-core {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--bundle", required=True, metavar="DIR", help="the bundle folder, or another that load takes")
    shared.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps or auto (default cpu)")
    shared.add_argument("--precision", default="fp32", metavar="P", help="fp32, bf16 or fp16 weights (default fp32)")
    classify = commands.add_parser(
        "classify",
        parents=[shared],
        help="which of these texts describes the image?",
        description="Score one image against texts; prints one line per text, best first: probability, tab, text.",
    )
    classify.add_argument("image", help="an image file that Pillow reads")
    classify.add_argument("text", nargs="+", help='candidate texts, say "a dog" "a cat"')
    embed = commands.add_parser(
        "embed",
        parents=[shared],
        help="features of many images as a NumPy or Parquet file",
        description="Write the features of images in folders and tar files, sorted by name. A run that was stopped "
        "goes on when the same command is given again. Exit code 1: done, but some images are broken and listed.",
    )
    embed.add_argument("source", nargs="+", help="a folder, searched to any depth, or a tar file")
    embed.add_argument("--output", required=True, metavar="FILE", help="what to write: ends in .npy or .parquet")
    embed.add_argument("--normalize", action="store_true", help="rows of length 1")
    embed.add_argument("--batch-size", type=int, default=64, metavar="N", help="images at a time (default 64)")
    embed.add_argument("--workers", type=int, default=2, metavar="N", help="threads that decode (default 2)")
    embed.add_argument(
        "--progress",
        action=argparse.BooleanOptionalAction,
        help="progress bar on stderr (default: where stderr is a terminal)",
    )
    kernels = commands.add_parser(
        "kernels",
        help="what a model runs with on a device: Triton's programs or plain torch",
        description="Print one line for each part of a model that has a choice: its shape, what it runs with, and why.",
    )
    kernels.add_argument("model", help="an architecture, say ViT-B-32, or a bundle folder")
    kernels.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps or auto (default cpu)")
    kernels.add_argument(
        "--architecture",
        metavar="SM",
        help="a GPU in place of the device, which need not be here: sm_90 is an H100 or H200",
    )
    kernels.add_argument("--precision", default="fp32", metavar="P", help="fp32, bf16 or fp16 (default fp32)")
    kernels.add_argument("--training", action="store_true", help="forward and backward, with the loss")
    options = parser.parse_args(arguments)
    command = {"classify": _classify, "embed": _embed, "kernels": _kernels}[options.command]
    return run(lambda: command(options), parser.prog)


def _classify(options: argparse.Namespace) -> int:
    # Imported late so that --help answers at once.
    import torch

    from clip_core.errors import CheckpointMismatch, ImageError
    from clip_core.images import open_image
    from clip_core.storage import load
    from clip_core.zero_shot import encode_texts

    if Path(options.image).is_dir():
        raise ImageError(f"{options.image} is a folder; classify takes one image. Features of a whole folder: embed.")
    image = open_image(options.image)
    bundle = load(options.bundle, precision=options.precision, device=options.device)
    with torch.inference_mode():
        pixels = bundle.preprocess(image).unsqueeze(0).to(bundle.model.logit_scale.device)
        feature = bundle.model.encode_image(pixels, normalize=True).float().cpu()
        texts = encode_texts(bundle.model, bundle.tokenizer, options.text)
        if not (torch.isfinite(feature).all() and torch.isfinite(texts).all()):
            raise CheckpointMismatch(f"{options.bundle} gives features that are not finite: its weights are damaged.")
        logits = bundle.model.logit_scale.exp().float().cpu() * feature @ texts.T
        if bundle.model.logit_bias is None:
            probabilities = logits.softmax(dim=-1)[0].tolist()
        else:
            # A model with a bias was trained to judge each text by itself (Zhai et al. 2023), not one against the rest.
            probabilities = (logits + bundle.model.logit_bias.float().cpu()).sigmoid()[0].tolist()
    for probability, text in sorted(zip(probabilities, options.text, strict=True), reverse=True):
        print(f"{probability:.4f}\t{text}")
    return 0


def _embed(options: argparse.Namespace) -> int:
    from clip_core.embedding import embed
    from clip_core.storage import load

    bundle = load(options.bundle, precision=options.precision, device=options.device)
    done = embed(
        bundle,
        options.source,
        options.output,
        normalize=options.normalize,
        batch_size=options.batch_size,
        workers=options.workers,
        progress=sys.stderr.isatty() if options.progress is None else options.progress,
    )
    print(f"{options.output}\t{done.rows} rows of {done.dimensions}")
    if done.broken:
        total = done.rows + done.broken
        print(f"{done.broken} of {total} images broken and without a row: see {done.broken_file}", file=sys.stderr)
    return 1 if done.broken else 0


def _kernels(options: argparse.Namespace) -> int:
    from clip_core.building import DTYPES
    from clip_core.device import resolve_device
    from clip_core.errors import ConfigError
    from clip_core.kernels import explain
    from clip_core.presets import get_config
    from clip_core.storage import read_config

    if options.precision not in DTYPES:
        raise ConfigError(f"precision is {options.precision!r}; allowed: {', '.join(DTYPES)}.")
    config = read_config(options.model) if Path(options.model).is_dir() else get_config(options.model)
    print(
        explain(
            config,
            # An architecture stands in place of the device, which need not be here.
            device=None if options.architecture else resolve_device(options.device),
            dtype=DTYPES[options.precision],
            training=options.training,
            architecture=options.architecture,
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
