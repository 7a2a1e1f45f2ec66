"""Which order goes with a source: `build_order`. What this room leaves out: the orders themselves."""

from __future__ import annotations

import logging
from itertools import accumulate

from clip_train.config import DataConfig
from clip_train.data.addresses import parse_factors
from clip_train.data.mixtures import MixedOrder, Part, ResampledOrder
from clip_train.data.order import Order
from clip_train.data.source import Limited, Source
from clip_train.data.windows import ResampledWindowOrder, Streams, WindowOrder

__all__ = ["build_order"]

_log = logging.getLogger(__name__)


def build_order(config: DataConfig, source: Source, seed: int, batch: int) -> Order:
    """The order of `source`; `batch`: samples of a step, of all processes.

    What lies on this machine is permuted as a whole, what has to be fetched in windows. Raises `ConfigError` for
    factors that do not fit the data.
    """
    from clip_train.data.shards import ShardSource

    inner = source.source if isinstance(source, Limited) else source
    if not isinstance(inner, ShardSource):
        parse_factors(config.train_data_upsampling_factors, 1)
        parts = [Part(0, len(source))]
        return ResampledOrder(seed, parts) if config.dataset_resampled else Order(seed, len(source))
    factors = parse_factors(config.train_data_upsampling_factors, len(inner.parts))
    sizes = inner.sizes
    firsts = list(accumulate(sizes, initial=0))
    shards = [sizes[first : first + count] for first, count in inner.parts]
    parts = [
        Part(firsts[first], sum(held), factor)
        for (first, _), held, factor in zip(inner.parts, shards, factors, strict=True)
    ]
    if inner.is_remote:
        streams = Streams(batch, min(config.order_streams, batch), config.shuffle_window)
        _say_what_is_needed(config, inner, streams)
        if config.dataset_resampled:
            return ResampledWindowOrder(seed, parts, streams, inner.fetch_soon)
        return WindowOrder(seed, list(zip(parts, shards, strict=True)), streams, inner.fetch_soon)
    if config.dataset_resampled:
        return ResampledOrder(seed, parts)
    return Order(seed, len(source)) if set(factors) == {1.0} else MixedOrder(seed, parts)


def _say_what_is_needed(config: DataConfig, source: object, streams: Streams) -> None:
    from clip_train.data.shards import ShardSource

    assert isinstance(source, ShardSource)
    # The window that is read and the one after it lie in so many shards of average size, and one for both ends.
    shards = -(-2 * streams.window * len(source.groups) // len(source)) + 1
    needed = min(streams.count * shards, len(source.groups)) * source.largest
    _log.info(
        "%d streams read %d remote shards in turn, about %.1f GB at a time",
        streams.count,
        len(source.groups),
        needed / 1e9,
    )
    if needed > config.data_cache_gb * 1e9:
        _log.warning(
            "--data-cache-gb %g is less than the %.1f GB that are read at a time: shards are fetched again and again. "
            "Allow more, or lower --order-streams or --shuffle-window",
            config.data_cache_gb,
            needed / 1e9,
        )
