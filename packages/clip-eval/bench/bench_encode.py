"""Images and texts per second: clip-eval's encoder beside a plain loop with open_clip, same weights, same pictures.

    python bench_encode.py [--model ViT-B-32] [--count 96]

Both sides take turns in one process, three times, and the fastest turn of each counts. The split is what a stage takes
by itself, without another one beside it. open_clip's loop decodes, transforms and encodes batches of the same size.

Measured on a busy machine, ViT-B-32, 24 pictures of 500 x 375, one thread for the model: decoding 132 and 131 a second
(theirs, ours), images 4.1 and 6.2 (one thread of ours decodes beside the model), captions of ten words 13.7 and 155
(each five begin alike).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from bench_clip_benchmark import make_pictures

import clip_core
from clip_core import Bundle
from clip_eval.encoder import Encoder
from clip_eval.reading import read_pixels
from clip_eval.wds import open_dataset, read_image_bytes


def best(turns: dict[str, Callable[[], object]], times: int = 3) -> dict[str, float]:
    """The least seconds of each, taken in turns."""
    seconds = dict.fromkeys(turns, float("inf"))
    for _ in range(times):
        for name, turn in turns.items():
            start = time.perf_counter()
            turn()
            seconds[name] = min(seconds[name], time.perf_counter() - start)
    return seconds


def main() -> None:
    import io

    import open_clip
    from PIL import Image

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="ViT-B-32")
    parser.add_argument("--count", type=int, default=96)
    parser.add_argument("--batch-size", type=int, default=32)
    given = parser.parse_args()
    torch.manual_seed(0)
    peer, _, transform = open_clip.create_model_and_transforms(given.model)
    peer.eval()
    tokenizer = open_clip.get_tokenizer(given.model)
    bundle: Bundle = clip_core.create(given.model)
    bundle.model.load_state_dict(peer.state_dict())
    with tempfile.TemporaryDirectory() as name:
        make_pictures(Path(name), given.count, 1)
        dataset = open_dataset(Path(name) / "pairs")
        encoder = Encoder(bundle=bundle, batch_size=given.batch_size)
        size = given.batch_size
        texts = [caption for captions in dataset.captions for caption in captions][: 4 * given.count]

        @torch.no_grad()
        def their_images() -> torch.Tensor:
            rows = []
            for start in range(0, given.count, size):
                data = [read_image_bytes(sample)[0] for sample in dataset.samples[start : start + size]]
                batch = torch.stack([transform(Image.open(io.BytesIO(picture))) for picture in data])
                rows.append(F.normalize(peer.encode_image(batch), dim=-1))
            return torch.cat(rows)

        @torch.no_grad()
        def their_texts() -> torch.Tensor:
            parts = [texts[start : start + size] for start in range(0, len(texts), size)]
            return torch.cat([F.normalize(peer.encode_text(tokenizer(part)), dim=-1) for part in parts])

        def their_pictures() -> None:
            for sample in dataset.samples:
                transform(Image.open(io.BytesIO(read_image_bytes(sample)[0])))

        def our_pictures() -> None:
            for sample in dataset.samples:
                read_pixels(bundle, sample)

        print(f"largest difference, images {(their_images() - encoder.images(dataset).features).abs().max():.1e}")
        print(f"largest difference, texts {(their_texts() - encoder.texts(texts)).abs().max():.1e}")
        for what, count, theirs, ours in (
            ("decode", given.count, their_pictures, our_pictures),
            ("images", given.count, their_images, lambda: encoder.images(dataset)),
            ("texts", len(texts), their_texts, lambda: encoder.texts(texts)),
        ):
            seconds = best({"theirs": theirs, "ours": ours})
            rates = {name: f"{count / value:.1f}/s" for name, value in seconds.items()}
            print(f"{what}: {rates}, {seconds['theirs'] / seconds['ours']:.2f} times as fast", flush=True)


if __name__ == "__main__":
    sys.exit(main())
