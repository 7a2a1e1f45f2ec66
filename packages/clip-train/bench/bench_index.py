"""How fast shards are indexed, filtered and ordered on one core: `python packages/clip-train/bench/bench_index.py`.

Makes a shard of 10,000 samples of an image, a caption and a json member, and prints samples per second of processor
time, beside `clip_eval.wds.index_shard`, which reads the same headers with tarfile.
"""

from __future__ import annotations

import io
import json
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from clip_eval.wds import index_shard
from clip_train.data.filters import Filter
from clip_train.data.indexing import Indexer
from clip_train.data.mixtures import Part
from clip_train.data.order import Order
from clip_train.data.rows import Selection
from clip_train.data.windows import Streams, WindowOrder

COUNT = 10_000


def write(path: Path) -> None:
    """The shard."""
    with tarfile.open(path, "w") as tar:
        for number in range(COUNT):
            facts = json.dumps({"similarity": number / COUNT, "language": "en", "punsafe": 0.1}).encode()
            for extension, data in (("jpg", b"x" * 5000), ("txt", b"a cat on a mat"), ("json", facts)):
                entry = tarfile.TarInfo(f"{number:09d}.{extension}")
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))


def measure(name: str, work: Callable[[], object]) -> None:
    """Print how fast `work` goes through as many samples."""
    before = time.process_time()
    work()
    print(f"{name:38} {COUNT / (time.process_time() - before):12,.0f} samples/s")


def main() -> None:
    """All measurements."""
    full = Order(0, 10**8)
    windows = WindowOrder(0, [(Part(0, 10**8), [10_000] * 10_000)], Streams(4096, 32, 5000))
    windows.sample(0, 0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "0.tar"
        write(path)
        plain = Indexer(Selection(), None, None)
        filtered = Indexer(
            Selection(filter=Filter("similarity > 0.3 and punsafe < 0.2 and language == 'en'")), None, None
        )
        measure("clip_eval.wds.index_shard", lambda: index_shard(path))
        measure("index built", lambda: plain.one(str(path)))
        measure("index read", lambda: plain.one(str(path)))
        measure("filter evaluated", lambda: filtered.one(str(path)))
        measure("filter read", lambda: filtered.one(str(path)))
    measure("order of 10^8 samples", lambda: [full.sample(0, position) for position in range(COUNT)])
    measure("order in windows, 10^8 samples", lambda: [windows.sample(0, position) for position in range(COUNT)])


if __name__ == "__main__":
    main()
