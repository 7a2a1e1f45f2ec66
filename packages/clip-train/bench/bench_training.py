"""Samples per second of clip-train's loop and of open_clip's parts, training `tiny` on the same batches on the CPU.

    python bench_training.py [--rounds 7] [--steps 6] [--batch-size 128] [--threads 1] [--json FILE]

Both sides start from the same weights in fp32 and get the same batches, already decoded, so reading is not in these
figures; a third row is the speed of reading and augmenting alone, in one process. The loop of clip-train is the real
one with its guard and its records; open_clip's is its model, its `ClipLoss`, torch's AdamW as `open_clip_train` builds
it, and the loop written out. Rounds alternate; figures are medians. Times are of the processor, not of the clock, so
that other work on the machine does not count; with more than one thread they add up over the threads.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import platform
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import PIL.Image
import torch

from clip_train import TrainConfig
from clip_train.data.decode import Batch, Decoder
from clip_train.data.loader import StepDataset
from clip_train.plan import Plan, prepare
from clip_train.trainer import fit, start

CAPTIONS = ("a photo of the digit {}", "a {} to the left of a seven", "the number {} written by hand, a little blurred")
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def write_shard(path: Path, samples: int) -> None:
    """Smooth 32 pixel pictures with noise and captions of 6 to 10 words."""
    random = np.random.default_rng(0)
    with tarfile.open(path, "w") as tar:
        for number in range(samples):
            small = PIL.Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8))
            image = io.BytesIO()
            small.resize((32, 32), PIL.Image.Resampling.BICUBIC).save(image, format="PNG")
            caption = CAPTIONS[number % 3].format(WORDS[number % 10])
            for extension, data in (("png", image.getvalue()), ("txt", caption.encode())):
                member = tarfile.TarInfo(f"{number:06d}.{extension}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


class Ready(Decoder):
    """Hands out batches that are already made."""

    def __init__(self, decoder: Decoder, batches: list[Batch]) -> None:
        super().__init__(decoder.source, decoder.order, decoder.pixels, decoder.tokenizer)
        self.batches = batches

    def batch(self, slots: Any) -> Batch:
        self.batches.append(self.batches.pop(0))
        return self.batches[-1]


def ours(config: TrainConfig, batches: list[Batch]) -> Callable[[], None]:
    """A round of clip-train's own loop."""
    made = prepare(config)
    fields = {name: getattr(made, name) for name in Plan.__slots__}
    plan = Plan(**{**fields, "decoder": Ready(made.decoder, list(batches)), "total_steps": len(batches)})
    return lambda: fit(start(plan))


def theirs(config: TrainConfig, batches: list[Batch]) -> Callable[[], None]:
    """A round of open_clip's model, loss and optimiser, with its full-length tokens."""
    plan = prepare(config)
    size, optim = plan.bundle.config, config.optim
    model = open_clip.CLIP(
        embed_dim=size.embed_dim,
        vision_cfg=open_clip.CLIPVisionCfg(
            layers=size.image.layers,
            width=size.image.width,
            head_width=size.image.width // size.image.heads,
            patch_size=size.image.patch_size,
            image_size=size.image.image_size,
        ),
        text_cfg=open_clip.CLIPTextCfg(
            context_length=size.text.context_length,
            width=size.text.width,
            heads=size.text.heads,
            layers=size.text.layers,
        ),
    )
    model.load_state_dict(plan.bundle.model.state_dict())
    model.train()
    plain = [p for n, p in model.named_parameters() if p.ndim < 2 or "ln" in n or "bias" in n or "logit_scale" in n]
    held = {id(p) for p in plain}
    rest = [p for p in model.parameters() if id(p) not in held]
    loss_of = open_clip.ClipLoss()
    padded = [torch.nn.functional.pad(b.tokens, (0, model.context_length - b.tokens.shape[1])) for b in batches]

    def round_() -> None:
        optimizer = torch.optim.AdamW(
            [{"params": plain, "weight_decay": 0.0}, {"params": rest, "weight_decay": optim.wd}],
            lr=optim.lr,
            betas=(optim.beta1, optim.beta2),
            eps=optim.eps,
        )
        for batch, tokens in zip(batches, padded, strict=True):
            optimizer.zero_grad()
            loss = loss_of(*model(plan.ready(batch).images, tokens))
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                model.logit_scale.clamp_(0, math.log(100))
            loss.item()

    return round_


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as folder:
        shard = Path(folder) / "0.tar"
        write_shard(shard, given.steps * given.batch_size)
        config = TrainConfig.of(
            model="tiny",
            train_data=str(shard),
            batch_size=given.batch_size,
            epochs=1,
            warmup=1,
            workers=0,
            device="cpu",
            precision="fp32",
        )
        whole = prepare(config)
        data = StepDataset(whole.decoder, whole.share)
        batches = [data[step] for step in range(given.steps)]
        assert all(isinstance(batch, Batch) for batch in batches)
        rows: dict[str, Callable[[], Any]] = {
            "clip-train, training": ours(config, batches),
            "open_clip, training": theirs(config, batches),
            "clip-train, reading": lambda: [data[step] for step in range(given.steps)],
        }
        times: dict[str, list[float]] = {name: [] for name in rows}
        for number in range(given.rounds + 1):
            for name, run in rows.items():
                begun = time.process_time()
                run()
                if number:
                    times[name].append(time.process_time() - begun)
    samples = given.steps * given.batch_size
    speeds = {name: samples / statistics.median(taken) for name, taken in times.items()}
    for name, speed in speeds.items():
        print(f"{name:24} {speed:8.0f} samples per second of processor time")
    ratio = speeds["clip-train, training"] / speeds["open_clip, training"]
    print(f"{'training, ratio':24} {ratio:8.2f}")
    if given.json:
        body = {
            "speeds": speeds,
            "ratio": ratio,
            "batch_size": given.batch_size,
            "threads": given.threads,
            "torch": torch.__version__,
            "open_clip": open_clip.__version__,
            "machine": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
        }
        given.json.write_text(json.dumps(body, indent=2, allow_nan=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
