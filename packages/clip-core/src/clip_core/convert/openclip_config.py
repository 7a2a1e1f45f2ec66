"""OpenCLIP's `open_clip_config.json` -> `ClipConfig`; the way back is `openclip_writing`.

`model_cfg` there leaves out what equals a default, stated in `openclip_words`, and gives ratios and head widths
where a `ClipConfig` gives final values. `preprocess_cfg` is optional, with OpenAI's values for what it lacks. A key
that is not known is refused: it could change the model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from clip_core.config import (
    Activation,
    AttentionPoolConfig,
    ClipConfig,
    ClipTokenizerConfig,
    DecoderConfig,
    HfTextConfig,
    HfTokenizerConfig,
    ImageConfig,
    PreprocessConfig,
    ResNetConfig,
    TextConfig,
    TextTowerConfig,
    TimmConfig,
    TokenizerConfig,
    VitConfig,
)
from clip_core.convert.openclip_words import (
    DECODER,
    HF_POOLS,
    IGNORED,
    IMAGE_POOLS,
    MODEL,
    POSITIONS,
    PREPROCESS,
    TEXT,
    TEXT_POOLS,
    UNUSED,
    VISION,
)
from clip_core.errors import ConfigError
from clip_core.presets import get_config, hf, list_models, parts

__all__ = ["from_openclip"]


def from_openclip(
    model_cfg: Mapping[str, Any], preprocess_cfg: Mapping[str, Any] | None = None, *, pad_id: int | None = None
) -> ClipConfig:
    """The model that OpenCLIP builds from `model_cfg`, with its preprocessing.

    Args:
        model_cfg: as in `open_clip_config.json` or OpenCLIP's own files of configurations.
        preprocess_cfg: as there; what it lacks is as in OpenAI's models.
        pad_id: what a Hugging Face tokenizer pads with, for one that no architecture of ours uses.

    Raises:
        ConfigError: a key or a value that clip-core has no counterpart for; named.
    """
    model = _read("model_cfg", model_cfg, MODEL)
    text_cfg = _read("text_cfg", model["text_cfg"], TEXT)
    image = _image(_read("vision_cfg", model["vision_cfg"], VISION), model["quick_gelu"])
    text = _text(text_cfg, model["quick_gelu"])
    decoder = None
    if model["multimodal_cfg"] is not None:
        decoder = _decoder(model["multimodal_cfg"], text_cfg["vocab_size"], text, model["quick_gelu"])
    nested = model["custom_text"] or decoder is not None or text.kind != "transformer"
    return ClipConfig(
        embed_dim=model["embed_dim"],
        image=image,
        text=text,
        decoder=decoder,
        layout="nested" if nested else "flat",
        logit_scale=float(model["init_logit_scale"]),
        logit_bias=None if model["init_logit_bias"] is None else float(model["init_logit_bias"]),
        preprocess=_preprocess(preprocess_cfg or {}, image),
        tokenizer=_tokenizer(text_cfg, text, pad_id),
    )


def _read(where: str, given: object, table: Mapping[str, Any]) -> dict[str, Any]:
    """`given` completed with the defaults of `table`; refuses a key that is neither there nor known to do nothing."""
    if not isinstance(given, Mapping):
        raise ConfigError(f"{where} is {given!r}; allowed: an object with {', '.join(table)}.")
    for key, value in given.items():
        if key in table or key in IGNORED or (key in UNUSED and value == UNUSED[key]):
            continue
        raise ConfigError(f"{where} has {key} = {value!r}, which clip-core does not know from OpenCLIP's models.")
    return {key: given.get(key, default) for key, default in table.items()}


def _choice(where: str, value: Any, table: Mapping[str, str]) -> Any:
    if value not in table:
        raise ConfigError(f"{where} is {value!r}; allowed: {', '.join(map(repr, table))}.")
    return table[value]


def _activation(where: str, act_kwargs: Any, quick_gelu: bool) -> Activation:
    if not act_kwargs:
        return "quick_gelu" if quick_gelu else "gelu"
    if act_kwargs == {"approximate": "tanh"} and not quick_gelu:
        return "gelu_tanh"
    raise ConfigError(f"{where}.act_kwargs is {act_kwargs!r} with quick_gelu {quick_gelu}; allowed: approximate tanh.")


def _norm_eps(where: str, norm_kwargs: Any) -> float:
    kwargs = norm_kwargs or {}
    if set(kwargs) - {"eps"}:
        raise ConfigError(f"{where}.norm_kwargs is {kwargs!r}; allowed: eps.")
    return float(kwargs.get("eps", 1e-5))


def _image(cfg: dict[str, Any], quick_gelu: bool) -> ImageConfig:
    size = tuple(cfg["image_size"]) if isinstance(cfg["image_size"], list) else cfg["image_size"]
    if cfg["timm_model_name"] is not None:
        return TimmConfig(
            name=cfg["timm_model_name"],
            image_size=size,
            pool=cfg["timm_pool"],
            # An empty one leaves the projection to timm's own classifier.
            projection=cfg["timm_proj"] or "trunk",
            head_dropout=cfg["timm_drop"],
            drop_path=cfg["timm_drop_path"],
            patch_dropout=cfg["patch_dropout"] or None,
            options=tuple((cfg["timm_model_kwargs"] or {}).items()),
        )
    width = cfg["width"]
    if isinstance(cfg["layers"], list | tuple):
        return ResNetConfig(
            image_size=size, layers=tuple(cfg["layers"]), width=width, heads=width * 32 // cfg["head_width"]
        )
    pool = cfg["attentional_pool"]
    return VitConfig(
        image_size=size,
        patch_size=cfg["patch_size"],
        width=width,
        layers=cfg["layers"],
        heads=width // cfg["head_width"],
        mlp_dim=int(width * cfg["mlp_ratio"]),
        activation=_activation("vision_cfg", cfg["act_kwargs"], quick_gelu),
        pool=_choice("vision_cfg.pool_type", cfg["pool_type"], IMAGE_POOLS),
        attention_pool=None
        if not pool
        else AttentionPoolConfig(
            queries=cfg["attn_pooler_queries"],
            heads=cfg["attn_pooler_heads"],
            mode="plain" if pool is True else pool,
        ),
        pre_norm=not cfg["no_ln_pre"],
        norm_after_pool=cfg["final_ln_after_pool"],
        norm_eps=_norm_eps("vision_cfg", cfg["norm_kwargs"]),
        layer_scale=cfg["ls_init_value"],
        positions=_choice("vision_cfg.pos_embed_type", cfg["pos_embed_type"], POSITIONS),
        patch_dropout=cfg["patch_dropout"],
    )


def _text(cfg: dict[str, Any], quick_gelu: bool) -> TextTowerConfig:
    if cfg["hf_model_name"] is not None:
        return _hf_text(cfg)
    projection = "linear_bias" if cfg["proj_bias"] else "linear"
    return TextConfig(
        context_length=cfg["context_length"],
        vocab_size=cfg["vocab_size"],
        width=cfg["width"],
        layers=cfg["layers"],
        heads=cfg["heads"],
        mlp_dim=int(cfg["width"] * cfg["mlp_ratio"]),
        activation=_activation("text_cfg", cfg["act_kwargs"], quick_gelu),
        causal=not cfg["no_causal_mask"],
        pool=_choice("text_cfg.pool_type", cfg["pool_type"], TEXT_POOLS),
        eos_id=cfg["eos_id"] if cfg["pool_type"] == "eos" else None,
        pad_id=cfg["pad_id"],
        class_token=cfg["embed_cls"],
        projection=_choice("text_cfg.proj_type", cfg["proj_type"], {"linear": projection, "none": "none"}),
        norm_eps=_norm_eps("text_cfg", cfg["norm_kwargs"]),
        layer_scale=cfg["ls_init_value"],
    )


def _hf_text(cfg: dict[str, Any]) -> HfTextConfig:
    name = cfg["hf_model_name"]
    for encoder, source in hf.SOURCES.items():
        if _short(source) == _short(name):
            return dataclasses.replace(
                encoder,
                context_length=cfg["context_length"],
                pool=_choice("text_cfg.hf_pooler_type", cfg["hf_pooler_type"], HF_POOLS),
                projection=cfg["hf_proj_type"] or "none",
            )
    raise ConfigError(
        f"text_cfg.hf_model_name is {name!r}, whose configuration is not among those that clip-core carries; allowed: "
        f"{', '.join(hf.SOURCES.values())}."
    )


def _short(source: str) -> str:
    """A Hub repository without its owner, which OpenCLIP's older configurations leave out."""
    return source.rpartition("/")[2]


def _decoder(cfg: Mapping[str, Any], vocab_size: int, text: TextTowerConfig, quick_gelu: bool) -> DecoderConfig:
    given = _read("multimodal_cfg", cfg, DECODER)
    # Of fairseq's vocabularies, which the Hugging Face encoders of CoCa have, and of OpenAI's.
    start_id, end_id, pad_id = (0, 2, 1) if text.kind == "hf" else (parts.VOCAB_SIZE - 2, parts.VOCAB_SIZE - 1, 0)
    return DecoderConfig(
        context_length=given["context_length"],
        vocab_size=vocab_size,
        width=given["width"],
        layers=given["layers"],
        heads=given["heads"],
        mlp_dim=4 * given["width"],  # OpenCLIP does not pass the ratio on
        activation="quick_gelu" if quick_gelu else "gelu",
        start_id=start_id,
        end_id=end_id,
        pad_id=pad_id,
    )


def _preprocess(given: Mapping[str, Any], image: ImageConfig) -> PreprocessConfig:
    cfg = _read("preprocess_cfg", {key: value for key, value in given.items() if value is not None}, PREPROCESS)
    if cfg["mode"] != "RGB":
        raise ConfigError(f"preprocess_cfg.mode is {cfg['mode']!r}; allowed: 'RGB'.")
    return PreprocessConfig(
        size=image.image_size,  # as OpenCLIP does: the tower's size, whatever the file says
        mean=tuple(cfg["mean"]),
        std=tuple(cfg["std"]),
        interpolation=cfg["interpolation"],
        resize_mode=cfg["resize_mode"],
        fill_color=cfg["fill_color"],
    )


def _tokenizer(cfg: dict[str, Any], text: TextTowerConfig, pad_id: int | None) -> TokenizerConfig:
    source = cfg["hf_tokenizer_name"]
    if not source:
        return ClipTokenizerConfig(context_length=text.context_length)
    kwargs = {"clean": "whitespace", "strip_sep_token": False, **(cfg["tokenizer_kwargs"] or {})}
    if set(kwargs) - {"clean", "strip_sep_token"}:
        raise ConfigError(f"text_cfg.tokenizer_kwargs is {kwargs!r}; allowed: clean, strip_sep_token.")
    known = _known_tokenizers().get(_short(source))
    if pad_id is None and isinstance(text, HfTextConfig):
        pad_id = text.pad_id
    elif pad_id is None and known is not None:
        pad_id = known.pad_id
    if pad_id is None:
        raise ConfigError(
            f"text_cfg.hf_tokenizer_name is {source!r}, of which clip-core does not know what it pads with; put its "
            "tokenizer.json and tokenizer_config.json beside the weights."
        )
    return HfTokenizerConfig(
        context_length=text.context_length,
        source=source,
        clean=kwargs["clean"],
        pad_id=pad_id,
        drop_separator=kwargs["strip_sep_token"],
        # What the tokenizer begins with where nothing is asked for, as OpenCLIP leaves it.
        language="" if known is None else known.language,
    )


def _known_tokenizers() -> dict[str, HfTokenizerConfig]:
    tokenizers = [get_config(name).tokenizer for name in list_models()]
    return {_short(held.source): held for held in tokenizers if isinstance(held, HfTokenizerConfig)}
