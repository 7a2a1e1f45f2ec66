"""CLIP with a text encoder of transformers: RoBERTa, XLM-RoBERTa, mT5, NLLB-200 and ModernBERT.

Their configurations stand here, so that a model is built without the Hub; the numbers are those of the `config.json`
files of roberta-base, xlm-roberta-base and -large (Conneau et al. 2019), google/mt5-base and -xl (Xue et al. 2020),
facebook/nllb-200-distilled-600M and -1.3B (Costa-jussà et al. 2022) and Alibaba-NLP/gte-modernbert-base (Warner et
al. 2024). Models: LAION's RoBERTa and XLM-RoBERTa CLIPs, NLLB-CLIP (Visheratin 2023), and OpenCLIP's own.
"""

from __future__ import annotations

from clip_core.config import ClipConfig, HfTextConfig, HfTokenizerConfig, ImageConfig, TimmConfig, VitConfig
from clip_core.config.values import Activation, Option
from clip_core.presets.parts import INCEPTION_MEAN, INCEPTION_STD, model

__all__ = [
    "GTE_MODERNBERT_BASE",
    "MT5_BASE",
    "MT5_XL",
    "NLLB_1_3B",
    "NLLB_600M",
    "PRESETS",
    "ROBERTA_BASE",
    "SOURCES",
    "XLM_ROBERTA_BASE",
    "XLM_ROBERTA_LARGE",
    "hf_tokenizer",
]


def _roberta(model_type: str, vocab_size: int, width: int, layers: int, heads: int, mlp_dim: int) -> HfTextConfig:
    return HfTextConfig(
        model_type=model_type,  # type: ignore[arg-type]  # the record checks it
        settings=_pairs(
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=mlp_dim,
            hidden_act="gelu",
            hidden_dropout_prob=0.1,
            attention_probs_dropout_prob=0.1,
            max_position_embeddings=514,
            type_vocab_size=1,
            layer_norm_eps=1e-5,
            initializer_range=0.02,
        ),
        width=width,
        context_length=77,
        vocab_size=vocab_size,
        pad_id=1,
        pool="mean",
        projection="mlp",
    )


def _mt5(width: int, layers: int, heads: int, mlp_dim: int) -> HfTextConfig:
    return HfTextConfig(
        model_type="mt5",
        settings=_pairs(
            num_layers=layers,
            num_heads=heads,
            d_kv=64,
            d_ff=mlp_dim,
            feed_forward_proj="gated-gelu",
            relative_attention_num_buckets=32,
            relative_attention_max_distance=128,
            dropout_rate=0.1,
            layer_norm_epsilon=1e-6,
            initializer_factor=1.0,
        ),
        width=width,
        context_length=77,
        vocab_size=250_112,
        pad_id=0,
        pool="mean",
        projection="mlp",
    )


def _nllb(layers: int, mlp_dim: int) -> HfTextConfig:
    return HfTextConfig(
        model_type="m2m_100",
        settings=_pairs(
            encoder_layers=layers,
            encoder_attention_heads=16,
            encoder_ffn_dim=mlp_dim,
            activation_function="relu",
            dropout=0.1,
            attention_dropout=0.1,
            activation_dropout=0.0,
            encoder_layerdrop=0.0,
            max_position_embeddings=1024,
            scale_embedding=True,
            init_std=0.02,
        ),
        width=1024,
        context_length=77,
        vocab_size=256_206,
        pad_id=1,
        pool="cls",
        projection="linear",
    )


def _pairs(**settings: Option) -> tuple[tuple[str, Option], ...]:
    return tuple(settings.items())


# Encoders with the context, pooling and projection that OpenCLIP's models gave them.
ROBERTA_BASE = _roberta("roberta", 50_265, 768, 12, 12, 3072)
XLM_ROBERTA_BASE = _roberta("xlm-roberta", 250_002, 768, 12, 12, 3072)
XLM_ROBERTA_LARGE = _roberta("xlm-roberta", 250_002, 1024, 24, 16, 4096)
MT5_BASE = _mt5(768, 12, 12, 2048)
MT5_XL = _mt5(2048, 24, 32, 5120)
NLLB_600M = _nllb(12, 4096)
NLLB_1_3B = _nllb(24, 8192)
GTE_MODERNBERT_BASE = HfTextConfig(
    model_type="modernbert",
    settings=_pairs(
        num_hidden_layers=22,
        num_attention_heads=12,
        intermediate_size=1152,
        hidden_activation="gelu",
        max_position_embeddings=256,
        global_attn_every_n_layers=3,
        global_rope_theta=160_000.0,
        local_attention=128,
        local_rope_theta=10_000.0,
        norm_eps=1e-5,
        norm_bias=False,
        attention_bias=False,
        attention_dropout=0.0,
        embedding_dropout=0.0,
        mlp_bias=False,
        mlp_dropout=0.0,
        initializer_range=0.02,
        initializer_cutoff_factor=2.0,
    ),
    width=768,
    context_length=256,
    vocab_size=50_368,
    pad_id=50_283,
    pool="cls",
    projection="linear",
)

# Where on the Hub the tokenizer of each encoder is.
SOURCES = {
    ROBERTA_BASE: "FacebookAI/roberta-base",
    XLM_ROBERTA_BASE: "FacebookAI/xlm-roberta-base",
    XLM_ROBERTA_LARGE: "FacebookAI/xlm-roberta-large",
    MT5_BASE: "google/mt5-base",
    MT5_XL: "google/mt5-xl",
    NLLB_600M: "facebook/nllb-200-distilled-600M",
    NLLB_1_3B: "facebook/nllb-200-distilled-1.3B",
    GTE_MODERNBERT_BASE: "Alibaba-NLP/gte-modernbert-base",
}


def hf_tokenizer(text: HfTextConfig, source: str) -> HfTokenizerConfig:
    """The tokenizer of `source` on the Hub, with the context and padding of `text` and OpenCLIP's cleaning.

    NLLB's puts a language before each text, which is the position that its encoder is read at; English unless the
    record is changed.
    """
    return HfTokenizerConfig(
        context_length=text.context_length,
        source=source,
        clean="whitespace",
        pad_id=text.pad_id,
        language="eng_Latn" if text.model_type == "m2m_100" else "",
    )


def _vit_b_32(image_size: int = 224, activation: Activation = "gelu") -> VitConfig:
    return VitConfig(
        image_size=image_size, patch_size=32, width=768, layers=12, heads=12, mlp_dim=3072, activation=activation
    )


_VIT_H_14 = VitConfig(image_size=224, patch_size=14, width=1280, layers=32, heads=16, mlp_dim=5120, activation="gelu")


def _siglip(name: str) -> TimmConfig:
    return TimmConfig(name=name, image_size=384, pool="map", projection="none")


# name: (features, image tower, text tower). LAION trained the RoBERTa model with OpenAI's activation.
_ROWS: dict[str, tuple[int, ImageConfig, HfTextConfig]] = {
    "roberta-ViT-B-32": (512, _vit_b_32(activation="quick_gelu"), ROBERTA_BASE),
    "xlm-roberta-base-ViT-B-32": (512, _vit_b_32(), XLM_ROBERTA_BASE),
    "xlm-roberta-large-ViT-H-14": (1024, _VIT_H_14, XLM_ROBERTA_LARGE),
    "mt5-base-ViT-B-32": (512, _vit_b_32(), MT5_BASE),
    "mt5-xl-ViT-H-14": (1024, _VIT_H_14, MT5_XL),
    "nllb-clip-base": (512, _vit_b_32(), NLLB_600M),
    "nllb-clip-large": (1024, _VIT_H_14, NLLB_1_3B),
    "gte-modernbert-base-ViT-B-32-256": (512, _vit_b_32(256), GTE_MODERNBERT_BASE),
}

# The same with SigLIP's image tower, bias and preprocessing.
_SIGLIP_ROWS: dict[str, tuple[int, str, HfTextConfig]] = {
    "nllb-clip-base-siglip": (768, "vit_base_patch16_siglip_384", NLLB_600M),
    "nllb-clip-large-siglip": (1152, "vit_so400m_patch14_siglip_384", NLLB_1_3B),
}

PRESETS: dict[str, ClipConfig] = {
    **{
        name: model(embed_dim, image, text, layout="nested", tokenizer=hf_tokenizer(text, SOURCES[text]))
        for name, (embed_dim, image, text) in _ROWS.items()
    },
    **{
        name: model(
            embed_dim,
            _siglip(image),
            text,
            layout="nested",
            logit_bias=-10.0,
            mean=INCEPTION_MEAN,
            std=INCEPTION_STD,
            resize_mode="squash",
            tokenizer=hf_tokenizer(text, SOURCES[text]),
        )
        for name, (embed_dim, image, text) in _SIGLIP_ROWS.items()
    },
}
