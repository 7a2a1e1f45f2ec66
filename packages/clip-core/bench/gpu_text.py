"""Packed against padded text in bench_gpu: attention alone, and the text towers of ViT-B-32 and ViT-L-14.

Shapes: R texts, S = 77 positions, T tokens of all texts. Lengths are drawn as short captions have them, about 20 tokens
with the two marks.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import gpu_attention
import torch
from gpu_timing import Case, Clock, Row
from torch import Tensor

import clip_core
from clip_core import kernels
from clip_core.kernels.measured import length_class

TEXTS = 1024
POSITIONS = 77
TOWERS = {"ViT-B-32": (8, 64), "ViT-L-14": (12, 64)}
"""Heads and channels of a head of the text tower."""


def caption_lengths(count: int, longest: int = POSITIONS) -> Tensor:
    """(R,) int64 on the host: a log-normal distribution of mean 20 (standard deviation 8), at least 4, at most 77."""
    normal = torch.randn(count, generator=torch.Generator().manual_seed(0))
    return (normal * 0.385 + 2.92).exp().round().long().clamp(4, longest)


def captions(lengths: Tensor, vocabulary: int = 49408) -> Tensor:
    """(R, 77) ids: a start, random words, an end that has the highest id, and zeros."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(1, vocabulary - 2, (len(lengths), POSITIONS), generator=generator)
    places = torch.arange(POSITIONS)
    tokens[:, 0] = vocabulary - 2
    tokens[places == (lengths - 1)[:, None]] = vocabulary - 1
    return tokens.masked_fill_(places >= lengths[:, None], 0)


def attention(clock: Clock, heads: int, channels: int, longest: int) -> Row:
    """Packed attention beside torch's backends on the padded batch, for lengths up to `longest`."""
    if clock.rehearsal:
        heads, longest = 1, min(longest, 20)
    texts = 4 if clock.rehearsal else TEXTS
    lengths = caption_lengths(texts, longest)
    lengths[0] = longest
    starts = torch.tensor([0, *itertools.accumulate(lengths.tolist())], dtype=torch.int32, device=clock.device)
    tokens = int(lengths.sum())
    padded = torch.randn(texts, longest, 3, heads, channels, device=clock.device).bfloat16()
    packed = padded.flatten(0, 1)[:tokens].clone()
    shape = gpu_attention.Shape("", longest, heads, channels, True)
    call = gpu_attention.ours(clock, lambda leaf: kernels.packed_attention(leaf, starts, longest, causal=True))
    row = gpu_attention.compare(
        clock,
        {
            name: lambda way=way: gpu_attention.both_times(clock, way, padded)
            for name, way in gpu_attention.others(shape, clock.device).items()
        },
        lambda: gpu_attention.both_times(clock, call, packed),
    )
    of = {
        "longest": longest,
        "length": length_class(longest),
        "heads": heads,
        "channels": channels,
        "causal": True,
        "mean_length": tokens / texts,
    }
    return {"dtype": "bfloat16", "texts": texts, **of, **row}


def tower(clock: Clock, name: str, side: str) -> Row:
    """A text tower, forward and backward under autocast: padded by torch, or packed by ours."""
    torch.manual_seed(0)
    model = clip_core.create_model("tiny" if clock.rehearsal else name, device=clock.device)
    rows = 4 if clock.rehearsal else TEXTS
    lengths = caption_lengths(rows, min(POSITIONS, model.context_length))
    tokens = captions(lengths, model.vocab_size)[:, : model.context_length].to(clock.device)
    weights = [value for key, value in model.named_parameters() if not key.startswith(("visual", "logit"))]
    given = {"lengths": lengths} if side == "packed" else {}

    def step() -> None:
        with torch.autocast(clock.device.type, torch.bfloat16):
            features = model.encode_text(tokens, normalize=True, **given)
        torch.autograd.grad(features.float().square().sum(), weights, allow_unused=True)

    with kernels.use_backend("torch" if clock.rehearsal or side == "padded" else "triton"):
        peak = clock.peak_mib(step)
        took = clock.milliseconds(step, seconds=1)
    return {"texts": rows, "mean_length": lengths.double().mean().item(), "ms": took, "peak_mib": peak}


def open_clip_tower(clock: Clock, name: str, side: str) -> Row:
    """open_clip's text tower on the same padded texts."""
    if clock.rehearsal:
        return {"error": "not rehearsed"}
    import open_clip

    torch.manual_seed(0)
    model = open_clip.create_model(name, device=clock.device)
    lengths = caption_lengths(TEXTS)
    tokens = captions(lengths).to(clock.device)
    weights = [value for key, value in model.named_parameters() if not key.startswith(("visual", "logit"))]

    def step() -> None:
        with torch.autocast(clock.device.type, torch.bfloat16):
            features = model.encode_text(tokens, normalize=True)
        torch.autograd.grad(features.float().square().sum(), weights, allow_unused=True)

    peak = clock.peak_mib(step)
    took = clock.milliseconds(step, seconds=1)
    return {"texts": TEXTS, "ms": took, "peak_mib": peak}


def cases(clock: Clock) -> Iterator[Case]:
    sides: dict[str, Callable[..., Row]] = {"padded": tower, "packed": tower, "open_clip": open_clip_tower}
    for name, (heads, channels) in TOWERS.items():
        yield Case(
            f"packed attention, {name}",
            lambda heads=heads, channels=channels: attention(clock, heads, channels, POSITIONS),
            {"operation": "packed_attention", "longest": POSITIONS},
        )
        for side, run in sides.items():
            of: Row = {"tower": name, "side": side}
            yield Case(f"text tower {name} {side}", lambda name=name, side=side, run=run: run(clock, name, side), of)
    for longest in (16, 32, 64):
        yield Case(
            f"packed attention, up to {longest}",
            lambda longest=longest: attention(clock, 8, 64, longest),
            {"operation": "packed_attention", "longest": longest},
        )
