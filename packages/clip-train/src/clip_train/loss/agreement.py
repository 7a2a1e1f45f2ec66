"""What the processes tell each other before a loss, so that all of them raise where the features of one do not fit.

A collective for which one process does not come, or comes with another size, would let the others wait until the group
gives up. So every process first sends every other a few numbers about what it was given.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from clip_core.errors import ConfigError
from clip_core.kernels.contrastive import as_scalar, check_pairs
from clip_train.loss.exchange import Exchange
from clip_train.loss.share import Share, Wanted

__all__ = ["Inputs", "agree"]

_NAMES = ("clip_loss", "siglip_loss")
_SCHEMES = ("gather", "ring")
_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_DTYPE_NAMES = [str(dtype).removeprefix("torch.") for dtype in _DTYPES]
_MOST_RANKS = 8  # in a message


class Inputs(NamedTuple):
    """What a loss was given, all of it tensors."""

    images: Tensor
    texts: Tensor
    scale: Tensor
    bias: Tensor


class _Card(NamedTuple):
    """What a process says about itself. Places in the tuples above stand for names."""

    failed: int = 0
    wants_images: int = 0
    wants_texts: int = 0
    wants_scalars: int = 0
    # From here on all processes have to say the same.
    name: int = 0
    scheme: int = 0
    pairs: int = 0
    width: int = 0
    images: int = 0
    texts: int = 0
    sent: int = 0
    on_cpu: int = 0

    @property
    def common(self) -> tuple[int, ...]:
        return self[4:]

    @property
    def words(self) -> tuple[str, ...]:
        """`common` for a reader."""
        return (
            _NAMES[self.name],
            f"by {_SCHEMES[self.scheme]}",
            f"{self.pairs} pairs",
            f"{self.width} features",
            f"images of {_DTYPE_NAMES[self.images]}",
            f"texts of {_DTYPE_NAMES[self.texts]}",
            f"texts sent as {_DTYPE_NAMES[self.sent]}",
            "on a CPU" if self.on_cpu else "on a device",
        )


def agree(
    name: str,
    scheme: str,
    exchange: Exchange,
    images: Tensor,
    texts: Tensor,
    scale: Tensor | float,
    bias: Tensor | float | None,
) -> tuple[Inputs, Share, Wanted]:
    """The inputs of the loss `name`, this process's share without their history, and the gradients that are wanted.

    Raises on every process of the exchange: there what was found wrong on it, elsewhere `ConfigError` saying where.
    """
    try:
        inputs = _inputs(name, exchange, images, texts, scale, bias)
        share = Share.of(*inputs)
        mine = _card(name, scheme, inputs, share)
    except Exception:  # whatever it is, the others must hear of it before this process raises it
        exchange.table(_Card(failed=1))
        raise
    cards = [_Card(*numbers) for numbers in exchange.table(mine)]
    failed = [rank for rank, card in enumerate(cards) if card.failed]
    if failed:
        raise ConfigError(
            f"{name} over {exchange.size} processes cannot be computed: it failed on {_ranks(failed)}, where the "
            "error says why. Nothing was found wrong here."
        )
    if any(card.common != mine.common for card in cards):
        raise ConfigError(_difference(name, cards))
    return (
        inputs,
        share,
        Wanted(
            images=bool(mine.wants_images),
            scalars=bool(mine.wants_scalars),
            texts=any(card.wants_texts for card in cards),
            anything=any(card.wants_images or card.wants_texts or card.wants_scalars for card in cards),
        ),
    )


def _inputs(
    name: str,
    exchange: Exchange,
    images: Tensor,
    texts: Tensor,
    scale: Tensor | float,
    bias: Tensor | float | None,
) -> Inputs:
    check_pairs(name, images, texts)
    for side in (images, texts):
        if side.dtype not in _DTYPES:
            raise ConfigError(f"{name} got features of {side.dtype}; allowed: {', '.join(_DTYPE_NAMES)}.")
    if not exchange.reaches(images.device):
        raise ConfigError(
            f"{name} got features on {images.device}, where the processes of the group cannot send to each other "
            f"({dist.get_backend_config(exchange.group)}). Move them, or join the processes with a backend for "
            f"{images.device.type}."
        )
    wide = torch.float64 if torch.float64 in (images.dtype, texts.dtype) else torch.float32
    given = [("logit_scale", scale), ("logit_bias", 0.0 if bias is None else bias)]
    return Inputs(images, texts, *(as_scalar(name, what, value, images.device, wide) for what, value in given))


def _card(name: str, scheme: str, inputs: Inputs, share: Share) -> _Card:
    wanted = [torch.is_grad_enabled() and value.requires_grad for value in inputs]
    return _Card(
        wants_images=wanted[0],
        wants_texts=wanted[1],
        wants_scalars=wanted[2] or wanted[3],
        name=_NAMES.index(name),
        scheme=_SCHEMES.index(scheme),
        pairs=inputs.images.shape[0],
        width=inputs.images.shape[1],
        images=_DTYPES.index(inputs.images.dtype),
        texts=_DTYPES.index(inputs.texts.dtype),
        sent=_DTYPES.index(share.texts.dtype),
        on_cpu=inputs.images.device.type == "cpu",
    )


def _difference(name: str, cards: Sequence[_Card]) -> str:
    differing = [
        place for place, words in enumerate(zip(*(card.words for card in cards), strict=True)) if len({*words}) > 1
    ]
    ranks: dict[str, list[int]] = {}
    for rank, card in enumerate(cards):
        ranks.setdefault(" ".join(card.words[place] for place in differing), []).append(rank)
    told = "; ".join(f"{_ranks(those)}: {words}" for words, those in ranks.items())
    text = f"{name} over {len(cards)} processes was called with different inputs ({told}); allowed: the same on all."
    if len({card.pairs for card in cards}) > 1:
        text += (
            " With batches of unequal size the mean over processes would not be that over pairs: drop the last, "
            "incomplete batch of a pass or fill it up."
        )
    return text


def _ranks(ranks: Sequence[int]) -> str:
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    shown = ", ".join(map(str, ranks[:_MOST_RANKS]))
    return f"ranks {shown}" + (f" and {len(ranks) - _MOST_RANKS} more" if len(ranks) > _MOST_RANKS else "")
