"""Training steps of the text tower per second: without padding, padded, and open_clip's; one process, same weights.

    python bench_packed_text.py [--rounds 3] [--threads 1] [--only ViT-B-32] [--json FILE]

A step is forward and backward with gradients of every parameter. Texts share nothing but their first and last id. Their
lengths are drawn once: 2 and a gamma distribution of shape 3 and scale 6, cut to 77, so about 20 on average; "10" and
"40" have the scales 2.7 and 12.7. Before anything is timed, features and gradients of all sides are compared. The
figures are medians of rounds in alternation.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import torch
from beside import Row, alternate, options, report

import clip_core

NAME, BATCH, SCALES = "ViT-B-32", 32, {20: 6.0, 10: 2.7, 40: 12.7}


def captions(scale: float) -> tuple[torch.Tensor, list[int]]:
    """Token ids (BATCH, 77) and how many of each row are a text."""
    draw = np.random.default_rng(0)
    lengths = np.clip((2 + draw.gamma(3.0, scale, BATCH)).round().astype(int), 3, 77)
    tokens = np.zeros((BATCH, 77), dtype=np.int64)
    for row, length in enumerate(lengths):
        tokens[row, 0], tokens[row, length - 1] = 49_406, 49_407
        tokens[row, 1 : length - 1] = draw.integers(1, 49_000, length - 2)
    return torch.from_numpy(tokens), lengths.tolist()


def step(model: torch.nn.Module, encode: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """The features of one step and the gradient of the first attention."""
    model.zero_grad()
    features = encode()
    features.sum(dim=1).square().sum().backward()
    return features.detach(), model.transformer.resblocks[0].attn.in_proj_weight.grad


def main() -> None:
    import open_clip

    arguments = options(__doc__, rounds=3).parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    peer = open_clip.create_model(NAME)
    ours = clip_core.create_model(NAME).train()
    ours.load_state_dict(peer.state_dict())
    rows: list[Row] = []
    for mean, scale in SCALES.items():
        tokens, lengths = captions(scale)
        case = f"{NAME}, text steps of {BATCH} per second, {sum(lengths) / BATCH:.1f} of 77 tokens ({mean})"
        if arguments.only not in case:
            continue
        # The interface has no switch for padding; this is the way that keeps every position.
        padded = lambda t=tokens: ours.text_features_and_tokens(t)[0]  # noqa: E731
        calls: dict[str, Callable[[], object]] = {
            "packed": lambda t=tokens, n=lengths: step(ours, lambda: ours.encode_text(t, lengths=n)),
            "padded": lambda f=padded: step(ours, f),
            "open_clip": lambda t=tokens: step(peer, lambda: peer.encode_text(t)),
        }
        expected = calls["open_clip"]()
        difference = 0.0
        for name in ("packed", "padded"):
            for mine, theirs in zip(calls[name](), expected, strict=True):
                difference = max(difference, float((mine - theirs).abs().max() / theirs.abs().max()))
        if difference > 1e-4:
            sys.exit(f"{case}: features or gradients differ by {difference:.1e}")
        times = alternate(calls, arguments.rounds, warm=False)
        figures: Row = {"case": case, **{side: 1 / value for side, value in times.items()}}
        figures |= {"x padded": times["padded"] / times["packed"], "x open_clip": times["open_clip"] / times["packed"]}
        rows.append({**figures, "largest difference": difference})
        print(figures, file=sys.stderr, flush=True)
    report("packed_text", rows, arguments.json)


if __name__ == "__main__":
    main()
