"""What another process does in test_places.py: it fetches the data set it is told of, and answers with the folder."""

from __future__ import annotations

from clip_core.errors import ClipError
from clip_eval.places import fetch_dataset

if __name__ == "apart":
    told = globals()["TOLD"]
    if told["room"] is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (told["room"], told["room"]))
    try:
        told["answer"].send(str(fetch_dataset(told["url"], cache_dir=told["cache"])))
    except ClipError as error:
        told["answer"].send(f"error: {error}")
