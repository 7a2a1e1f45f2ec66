"""OpenCLIP's options for writing captions, in clip-core's words; its `CoCa.generate` does the work."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from clip_core.config import DecoderConfig
from clip_core.errors import ConfigError

__all__ = ["generate_captions"]

_log = logging.getLogger(__name__)


def generate_captions(
    generate: Callable[..., Tensor],
    decoder: DecoderConfig,
    image: Tensor,
    text: Tensor | None = None,
    seq_len: int = 30,
    max_seq_len: int = 77,
    temperature: float = 1.0,
    generation_type: str = "beam_search",
    top_p: float = 0.1,
    top_k: int = 1,
    pad_token_id: int | None = None,
    eos_token_id: int | Sequence[int] | None = None,
    sot_token_id: int | None = None,
    num_beams: int = 6,
    num_beam_groups: int = 3,
    min_seq_len: int = 5,
    stopping_criteria: Any = None,
    repetition_penalty: float = 1.0,
    fixed_output_length: bool = False,
) -> Tensor:
    """One caption per image as token ids (B, L), int64, from `generate` with clip-core's options.

    Args:
        generate: `clip_core.coca.CoCa.generate` of a model.
        decoder: that model's decoder.
        image: (B, 3, height, width), preprocessed.
        text: ids to continue, (S,) or (B, S), for "top_k" and "top_p"; a beam search does not use it.
        seq_len: most ids of a caption, start and end included.
        max_seq_len: as many ids as the decoder may look back at; at least `seq_len`.
        temperature: what the logits are divided by before drawing.
        generation_type: "beam_search", or drawing from the "top_k" likeliest or from the least that sum to "top_p".
        top_p, top_k: for these two; a `top_k` of 1 takes the likeliest each time.
        pad_token_id: None, or the decoder's own.
        eos_token_id: an id or several that end a caption; None is the vocabulary's end of text.
        sot_token_id: None, or the decoder's own.
        num_beams: captions of an image that grow side by side, in all groups together.
        num_beam_groups: parts of the beams. Without a penalty for being alike, and OpenCLIP has none, each finds the
            same, so that one is computed.
        min_seq_len: no caption ends before it has so many ids.
        stopping_criteria: None.
        repetition_penalty: above 1 makes ids that the caption has less likely.
        fixed_output_length: pad the result to `seq_len`.

    Raises:
        ConfigError: another value of an option, or what `CoCa.generate` refuses.
    """
    for name, value, allowed in (
        ("stopping_criteria", stopping_criteria, None),
        ("pad_token_id", pad_token_id, decoder.pad_id),
        ("sot_token_id", sot_token_id, decoder.start_id),
    ):
        if value is not None and value != allowed:
            raise ConfigError(f"{name} is {value!r}; allowed: None" + ("." if allowed is None else f" or {allowed}."))
    if max_seq_len < seq_len:
        raise ConfigError(f"max_seq_len is {max_seq_len}; allowed: seq_len {seq_len} or more.")
    options: dict[str, Any] = {
        "max_length": seq_len,
        "min_length": min_seq_len,
        "repetition_penalty": repetition_penalty,
    }
    if eos_token_id is not None:
        options["stop_ids"] = (eos_token_id,) if isinstance(eos_token_id, int) else tuple(eos_token_id)
    if generation_type == "beam_search":
        if num_beam_groups < 1 or num_beams % num_beam_groups:
            raise ConfigError(f"num_beam_groups is {num_beam_groups}; allowed: a divisor of num_beams {num_beams}.")
        if text is not None:
            _log.warning("generate: a beam search does not use the text; OpenCLIP's does not either")
        found = generate(image, method="beam", beams=num_beams // num_beam_groups, **options)
    elif generation_type == "top_k" and top_k == 1:
        found = generate(image, text, method="greedy", **options)
    elif generation_type in ("top_k", "top_p"):
        options |= {"top_k": top_k} if generation_type == "top_k" else {"top_p": top_p}
        found = generate(image, text, method="sample", temperature=temperature, **options)
    else:
        raise ConfigError(f"generation_type is {generation_type!r}; allowed: 'beam_search', 'top_k', 'top_p'.")
    if fixed_output_length and found.shape[1] < seq_len:
        rest = found.new_full((len(found), seq_len - found.shape[1]), decoder.pad_id)
        found = torch.cat([found, rest], dim=1)
    return found[0] if text is not None and text.ndim == 1 and generation_type != "beam_search" else found
