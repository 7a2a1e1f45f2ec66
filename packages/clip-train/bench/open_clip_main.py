"""`python open_clip_main.py FLAGS` is `python -m open_clip_train.main FLAGS` beside any webdataset.

open_clip 3.3.0 asks for webdataset 0.2.86 or older. Newer ones put an empty sample behind the last one of a shard, on
which its reader ends with a KeyError; they leave it out where they are asked to, and that is all that is changed here.
"""

from __future__ import annotations

import functools
import inspect
import sys

import open_clip_train.data
from open_clip_train.main import main

if __name__ == "__main__":
    expand = open_clip_train.data.tar_file_expander
    if "eof_value" in inspect.signature(expand).parameters:
        open_clip_train.data.tar_file_expander = functools.partial(expand, eof_value=None)
    main(sys.argv[1:])
