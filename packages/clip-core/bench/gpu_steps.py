"""Whole training steps in bench_gpu: both towers, the loss, the gradients and AdamW, under autocast to bfloat16.

"everything" is clip-core with packed texts and with each program that this very run found at least 1.15 times as fast
as torch; "torch" is clip-core without Triton, with padded texts; "open_clip" is OpenCLIP's model and loss where it is
installed. Images are random, lengths of texts are those of `gpu_text`. Data loading is not in the step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import gpu_text
import torch
from gpu_timing import Case, Clock, Row
from torch import Tensor

import clip_core
from clip_core import kernels
from clip_core.kernels import dispatch, measured

BATCHES = {"ViT-B-32": 1024, "ViT-L-14": 256}


def count_in(rows: Sequence[measured.Measured]) -> None:
    """Let `dispatch` choose by `rows` in this process."""
    measured.MEASURED = tuple(rows)
    dispatch._read.cache_clear()


def step_of(encode: Callable[[], Tensor], model: torch.nn.Module) -> Callable[[], None]:
    """The step around `encode`, which gives the loss."""
    weights = [value for value in model.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-5, weight_decay=0.2, fused=weights[0].is_cuda)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(weights[0].device.type, torch.bfloat16):
            loss = encode()
        loss.backward()
        optimizer.step()

    return step


def measure(clock: Clock, name: str, side: str, rows: Sequence[measured.Measured]) -> Row:
    """Milliseconds and peak of one kind of step."""
    torch.manual_seed(0)
    preset = "tiny" if clock.rehearsal else name
    batch = 4 if clock.rehearsal else BATCHES[name]
    if side == "open_clip":
        if clock.rehearsal:
            return {"model": name, "side": side, "error": "not rehearsed"}
        from open_clip import create_model
        from open_clip.loss import ClipLoss

        model, criterion = create_model(preset, device=clock.device), ClipLoss()
    else:
        model, criterion = clip_core.create_model(preset, device=clock.device), kernels.clip_loss
    model.train()
    config = clip_core.get_config(preset)
    size = clip_core.create_model(preset, device="meta").visual.image_size
    lengths = gpu_text.caption_lengths(batch, config.text.context_length)
    tokens = gpu_text.captions(lengths, config.text.vocab_size)[:, : config.text.context_length].to(clock.device)
    images = torch.randn(batch, 3, *size, device=clock.device)
    given = {"lengths": lengths} if side == "everything" else {}

    def encode() -> Tensor:
        image = model.encode_image(images, normalize=True)
        text = model.encode_text(tokens, normalize=True, **given)
        return criterion(image, text, model.logit_scale.exp())

    step = step_of(encode, model)
    if side == "everything":
        count_in(rows)
        times = clock.milliseconds(step, seconds=1.5, pipelined=False), clock.peak_mib(step)
    else:
        with kernels.use_backend("torch"):
            times = clock.milliseconds(step, seconds=1.5, pipelined=False), clock.peak_mib(step)
    took, peak = times
    per_second = batch / took * 1000
    of = {"model": name, "side": side, "batch": batch, "mean_length": lengths.double().mean().item()}
    return {**of, "ms": took, "peak_mib": peak, "samples_per_s": per_second, "programs": len(given) and len(rows)}


def cases(clock: Clock, rows: Sequence[measured.Measured]) -> Iterator[Case]:
    for name in BATCHES:
        for side in ("everything", "torch", "open_clip"):
            yield Case(f"step {name} {side}", lambda name=name, side=side: measure(clock, name, side, rows))
