"""The rows as a Parquet file: a column `name` and a column `embedding` of fixed-size lists of float32.

Made from the NumPy file when that is complete, a few thousand rows at a time. Needs pyarrow (the extra `parquet`).
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from clip_core.errors import ConfigError
from clip_core.schema import JSON

__all__ = ["require_pyarrow", "write_parquet"]

_ROWS = 8192  # of one row group


def require_pyarrow() -> None:
    """Raises `ConfigError` with the command that installs pyarrow where it is missing."""
    if importlib.util.find_spec("pyarrow") is None:
        raise ConfigError(
            "A .parquet file needs pyarrow: pip install 'clip-core[parquet]'. Without it name the output .npy."
        )


def write_parquet(rows: Path, target: Path, names: Sequence[str], provenance: JSON) -> None:
    """Write the NumPy file `rows` (N, D) of float32 as `target`, the provenance in its metadata under "clip_core"."""
    import pyarrow
    import pyarrow.parquet

    features = np.load(rows, mmap_mode="r")
    kind = pyarrow.list_(pyarrow.float32(), features.shape[1])
    schema = pyarrow.schema(
        [("name", pyarrow.string()), ("embedding", kind)], metadata={"clip_core": json.dumps(provenance)}
    )
    with pyarrow.parquet.ParquetWriter(target, schema) as writer:
        for first in range(0, len(names), _ROWS):
            part = np.array(features[first : first + _ROWS], dtype=np.float32)
            lists = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(part.reshape(-1)), type=kind)
            columns = [pyarrow.array(names[first : first + _ROWS], pyarrow.string()), lists]
            writer.write_table(pyarrow.Table.from_arrays(columns, schema=schema))
