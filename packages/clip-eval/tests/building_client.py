"""What another process does in test_building.py: it writes without end, to be killed or to run out of room."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path

from clip_core.errors import StorageError
from clip_eval.building import Example, Source, write_dataset


def without_end(image: Path) -> Iterator[Example]:
    for _ in itertools.count():
        yield Example(image=image, label=0)
        time.sleep(0.002)


if __name__ == "apart":
    told = globals()["TOLD"]
    if told["room"] is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (told["room"], told["room"]))
    source = Source(kind="classification", classnames=("a",), examples=without_end(told["image"]))
    try:
        write_dataset(told["folder"], source, max_count=5 if told["room"] is None else 10_000)
    except StorageError as error:
        told["answer"].send(str(error))
