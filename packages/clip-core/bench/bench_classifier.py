"""Seconds to build a zero-shot classifier of 32 classes with 80 templates, in clip-core and in open_clip.

    python bench_classifier.py [--rounds 1] [--classes 32] [--threads 1] [--json FILE]

ViT-B-32 with the same random weights, from strings to the (D, C) matrix, tokenizing included.
"""

from __future__ import annotations

import sys

import open_clip
import torch
from bench_encode import pair
from beside import alternate, options, report

from clip_core import get_tokenizer
from clip_core.zero_shot import build_zero_shot_classifier


def main() -> None:
    parser = options(__doc__, rounds=1)
    parser.add_argument("--classes", type=int, default=32)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    ours, peer = pair("ViT-B-32")
    names = open_clip.IMAGENET_CLASSNAMES[:: len(open_clip.IMAGENET_CLASSNAMES) // arguments.classes][
        : arguments.classes
    ]
    templates = open_clip.OPENAI_IMAGENET_TEMPLATES
    tokenizer, theirs = get_tokenizer("ViT-B-32"), open_clip.get_tokenizer("ViT-B-32")
    made: dict[str, torch.Tensor] = {}
    calls = {
        "ours": lambda: made.update(ours=build_zero_shot_classifier(ours, tokenizer, names, templates)),
        "open_clip": lambda: made.update(
            open_clip=open_clip.build_zero_shot_classifier(peer, theirs, names, templates)
        ),
    }
    with torch.inference_mode():
        times = alternate(calls, arguments.rounds, warm=False)
    difference = float((made["ours"] - made["open_clip"]).abs().max())
    if difference > 1e-5:
        sys.exit(f"the classifiers differ by {difference:.1e}")
    case = f"classifier of {len(names)} x {len(templates)}, seconds"
    ratio = times["open_clip"] / times["ours"]
    report("classifier", [{"case": case, **times, "ratio": ratio, "largest difference": difference}], arguments.json)


if __name__ == "__main__":
    main()
