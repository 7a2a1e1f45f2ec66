"""Rows of token ids that a text tower cannot mean: of another length, padding or vocabulary, or without an end.

A tower that reads its last position, or attends to padding as to any token, gives plausible and wrong features for
them. The same goes for lengths of rows that are not theirs. Values are looked at on the CPU only, where it costs
microseconds; no device is waited for.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from clip_core.config import ClipConfig, HfTextConfig, HfTokenizerConfig, ModernTextConfig, TextConfig
from clip_core.errors import ConfigError
from clip_core.towers.short_text import plain, readable

__all__ = ["check_reach", "check_rows", "checked_lengths", "needs_whole_rows"]


def check_rows(tokens: Tensor, config: ClipConfig) -> None:
    """Raise `ConfigError` unless `tokens`, integers (B, S), can be rows of the tokenizer of this model."""
    text, whole = config.text, needs_whole_rows(config)
    if whole and tokens.shape[1] != text.context_length:
        raise ConfigError(
            f"encode_text got rows of {tokens.shape[1]} ids; allowed: {text.context_length}, padded, because this "
            "model was trained on whole rows. Use the tokenizer that comes with the model."
        )
    if not tokens.numel() or not readable(tokens):
        return
    low, high = (int(value) for value in tokens.aminmax())
    if low < 0 or high >= text.vocab_size:
        raise ConfigError(
            f"encode_text got the token id {low if low < 0 else high}; allowed: 0 to {text.vocab_size - 1}. "
            "Use the tokenizer that comes with the model."
        )
    if isinstance(text, TextConfig) and text.eos_id is not None and not text.class_token:
        _check_end(tokens, text.eos_id)
    if isinstance(text, HfTextConfig) or (isinstance(text, ModernTextConfig) and not text.causal):
        _check_padding(tokens, text.pad_id)  # the tower leaves that id out, and no other
    elif whole and isinstance(config.tokenizer, HfTokenizerConfig):
        _check_padding(tokens, config.tokenizer.pad_id)


def needs_whole_rows(config: ClipConfig) -> bool:
    """Whether the text tower takes rows of its context length alone; others may be cut behind their longest text."""
    text = config.text
    # A class token (CoCa) stands behind the padding, so its position is that of the row's end.
    return isinstance(text, TextConfig) and (not text.causal or text.pool == "last" or text.class_token)


def checked_lengths(lengths: Tensor | Sequence[int] | None, tokens: Tensor) -> Tensor | None:
    """`lengths` of the rows of `tokens` (B, S) as (B,) int64, cut to S; None where there are none to go by.

    A trace or a transform goes by none: it would hold the lengths of one batch for ever. Raises `ConfigError` for
    lengths that `encode_text` does not take.
    """
    if lengths is None or not plain(tokens):
        return None
    wanted = f"allowed: {len(tokens)} integers on the CPU, as tokenizer.tokenize(texts).lengths"
    try:
        # A list has no device, whatever torch.set_default_device says.
        given = lengths if isinstance(lengths, Tensor) else torch.as_tensor(lengths, device="cpu")
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"encode_text got lengths of type {type(lengths).__name__} ({error}); {wanted}.") from error
    if given.device.type != "cpu":
        raise ConfigError(f"encode_text got lengths on {given.device}, which it would wait for; {wanted}.")
    if given.shape != tokens.shape[:1]:
        raise ConfigError(f"encode_text got lengths of shape {tuple(given.shape)}; {wanted}.")
    if not len(given):
        return None
    if given.is_floating_point() or given.is_complex() or given.dtype == torch.bool:
        raise ConfigError(f"encode_text got lengths of {given.dtype}; {wanted}.")
    given = given.long()
    if int(given.min()) < 1:
        row = int(given.argmin())
        raise ConfigError(f"encode_text got the length {int(given[row])} for row {row}; allowed: 1 or more.")
    return given.clamp(max=tokens.shape[1])


def check_reach(lengths: Tensor, read: Tensor) -> None:
    """Raise `ConfigError` where a row is read, at its position `read` (B,), behind its length (B,)."""
    short = read >= lengths
    if bool(short.any()):
        row = int(short.nonzero()[0])
        raise ConfigError(
            f"encode_text got the length {int(lengths[row])} for row {row}, which ends with its token "
            f"{int(read[row]) + 1}; allowed: {int(read[row]) + 1} or more. tokenizer.tokenize(texts).lengths are right."
        )


def _check_end(tokens: Tensor, eos_id: int) -> None:
    # Such a row would be read at its first position.
    endless = ~(tokens == eos_id).any(dim=1)
    if bool(endless.any()):
        raise ConfigError(
            f"encode_text got rows without the end of text, such as row {int(endless.nonzero()[0])}; allowed: rows "
            f"with the id {eos_id}. Use the tokenizer that comes with the model, which cuts a text before its end."
        )


def _check_padding(tokens: Tensor, pad_id: int) -> None:
    # A row whose last two ids are equal is padded with them: one without padding has a token there and then the end.
    last = tokens[:, -1]
    wrong = (last == tokens[:, -2]) & (last != pad_id)
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        raise ConfigError(
            f"encode_text got rows padded with {int(last[row])}, such as row {row}; allowed: {pad_id}. "
            "Use the tokenizer that comes with the model."
        )
