"""What the processes tell each other before a loss, so that all of them raise where the features of one do not fit.

A collective for which one process does not come, or comes with another size, would let the others wait until the group
gives up. So every process first sends every other a few numbers about what it was given. Scale and bias are among them
where their values are known without waiting: numbers, and tensors on the CPU.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from clip_core.errors import ConfigError
from clip_core.kernels.contrastive import DTYPE_NAMES, DTYPES, as_scalar, check_pairs
from clip_train.loss.exchange import Exchange
from clip_train.loss.share import Share, Wanted

__all__ = ["Inputs", "agree"]

_NAMES = ("clip_loss", "siglip_loss")
_SCHEMES = ("gather", "ring")
_MOST_RANKS = 8  # in a message
_SAME = 1e-5
"""Relative difference of two scales or biases that is rounding: processors need not agree on the last bits of exp."""


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
    # The bits of float64 numbers, if they are known here.
    knows_scale: int = 0
    scale: int = 0
    knows_bias: int = 0
    bias: int = 0
    # From here on all processes have to say the same.
    name: int = 0
    scheme: int = 0
    pairs: int = 0
    width: int = 0
    images: int = 0
    texts: int = 0
    sent: int = 0
    on_cpu: int = 0
    has_bias: int = 0

    @property
    def common(self) -> tuple[int, ...]:
        return self[8:]

    @property
    def scalars(self) -> tuple[float | None, float | None]:
        """Scale and bias; None where they are on a device, which is not waited for."""
        scale = _as_number(self.scale) if self.knows_scale else None
        return scale, _as_number(self.bias) if self.knows_bias else None

    @property
    def words(self) -> tuple[str, ...]:
        """`common` for a reader."""
        return (
            _NAMES[self.name],
            f"by {_SCHEMES[self.scheme]}",
            f"{self.pairs} pairs",
            f"{self.width} features",
            f"images of {DTYPE_NAMES[self.images]}",
            f"texts of {DTYPE_NAMES[self.texts]}",
            f"texts sent as {DTYPE_NAMES[self.sent]}",
            "on a CPU" if self.on_cpu else "on a device",
            "a bias" if self.has_bias else "no bias",
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
        mine = _card(name, scheme, inputs, share, scale, bias)
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
    _check_scalars(name, cards)
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
    if not exchange.reaches(images.device):
        raise ConfigError(
            f"{name} got features on {images.device}, where the processes of the group cannot send to each other "
            f"({dist.get_backend_config(exchange.group)}). Move them, or join the processes with a backend for "
            f"{images.device.type}."
        )
    wide = torch.float64 if torch.float64 in (images.dtype, texts.dtype) else torch.float32
    given = [("logit_scale", scale), ("logit_bias", 0.0 if bias is None else bias)]
    return Inputs(images, texts, *(as_scalar(name, what, value, images.device, wide) for what, value in given))


def _card(
    name: str, scheme: str, inputs: Inputs, share: Share, scale: Tensor | float, bias: Tensor | float | None
) -> _Card:
    known = [_known(given, used) for given, used in ((scale, inputs.scale), (bias, inputs.bias))]
    wanted = [torch.is_grad_enabled() and value.requires_grad for value in inputs]
    return _Card(
        wants_images=wanted[0],
        wants_texts=wanted[1],
        wants_scalars=wanted[2] or wanted[3],
        knows_scale=known[0] is not None,
        scale=_as_bits(known[0] or 0.0),
        knows_bias=known[1] is not None,
        bias=_as_bits(known[1] or 0.0),
        name=_NAMES.index(name),
        scheme=_SCHEMES.index(scheme),
        pairs=inputs.images.shape[0],
        width=inputs.images.shape[1],
        images=DTYPES.index(inputs.images.dtype),
        texts=DTYPES.index(inputs.texts.dtype),
        sent=DTYPES.index(share.texts.dtype),
        on_cpu=inputs.images.device.type == "cpu",
        has_bias=bias is not None,
    )


def _known(given: Tensor | float | None, used: Tensor) -> float | None:
    """The value of a scalar in the dtype in which it is used, or None where it is on a device, or not there."""
    if given is None or (isinstance(given, Tensor) and given.device.type != "cpu"):
        return None
    return float(torch.as_tensor(given, device="cpu").detach().to(used.dtype))


def _as_bits(value: float) -> int:
    bits: int = struct.unpack("<q", struct.pack("<d", value))[0]
    return bits


def _as_number(bits: int) -> float:
    number: float = struct.unpack("<d", struct.pack("<q", bits))[0]
    return number


def _check_scalars(name: str, cards: Sequence[_Card]) -> None:
    """Raise `ConfigError` where a scale or bias is another number on another process, as far as that is known."""
    for place, what in enumerate(("logit_scale", "logit_bias")):
        known = [(rank, value) for rank, card in enumerate(cards) if (value := card.scalars[place]) is not None]
        for rank, value in known[1:]:
            first, right = known[0]
            if not (math.isclose(value, right, rel_tol=_SAME) or (math.isnan(value) and math.isnan(right))):
                raise ConfigError(
                    f"{name} over {len(cards)} processes got different values of {what} (rank {first}: {right:.6g}; "
                    f"rank {rank}: {value:.6g}); allowed: one number on all. DistributedDataParallel keeps parameters "
                    "equal that it was given, if each process changes them through the optimizer alone."
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
