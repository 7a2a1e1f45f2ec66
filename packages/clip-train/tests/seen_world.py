"""One of several processes that train while one of them reads slowly: `torchrun seen_world.py CONFIG.json`."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from clip_train import TrainConfig, train
from clip_train.data.decode import Decoder


def main() -> None:
    honest = Decoder.batch

    def slow(self: Decoder, *args: Any, **named: Any) -> Any:
        if os.environ["RANK"] == "1":
            time.sleep(0.1)
        return honest(self, *args, **named)

    Decoder.batch = slow  # type: ignore[method-assign]
    train(TrainConfig.from_json(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
