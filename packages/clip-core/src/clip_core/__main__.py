"""`python -m clip_core classify`: score one image against texts with a bundle, using nothing but this package."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

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
    classify = commands.add_parser(
        "classify",
        help="which of these texts describes the image?",
        description="Score one image against texts; prints one line per text, best first: probability, tab, text.",
    )
    classify.add_argument("--bundle", required=True, metavar="DIR", help="the bundle folder")
    classify.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps or auto (default cpu)")
    classify.add_argument("image", help="an image file that Pillow reads")
    classify.add_argument("text", nargs="+", help='candidate texts, say "a dog" "a cat"')
    options = parser.parse_args(arguments)
    return run(lambda: _classify(options), parser.prog)


def _classify(options: argparse.Namespace) -> None:
    # Imported late so that --help answers at once.
    import torch

    from clip_core.errors import CheckpointMismatch
    from clip_core.images import open_image
    from clip_core.storage import load
    from clip_core.zero_shot import encode_texts

    image = open_image(options.image)
    bundle = load(options.bundle, device=options.device)
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


if __name__ == "__main__":
    sys.exit(main())
