"""Rows of facts: every flag of open_clip, by version, and those that make no sense here.

`flags` registers what no field of `config` has, so that a beginning of a name means the same flag here and there, and
refuses it by name: a flag is never ignored. A flag is built by giving a group of `config` a field of its name; nothing
is to be done here. What this room leaves out: what the flags mean.
"""

from __future__ import annotations

__all__ = ["MAIN", "NEVER", "NOT_NEEDED", "VERSION_3"]

# In 3.3.0 and in main.
_BOTH = (
    # data
    "train-data", "train-data-upsampling-factors", "val-data", "train-num-samples", "val-num-samples", "dataset-type",
    "dataset-resampled", "csv-separator", "csv-img-key", "csv-caption-key", "workers", "image-mean", "image-std",
    "image-interpolation", "image-resize-mode", "aug-cfg",
    # evaluation
    "imagenet-val", "imagenet-v2", "zeroshot-frequency", "val-frequency",
    # optimisation
    "batch-size", "epochs", "epochs-cooldown", "lr", "beta1", "beta2", "eps", "wd", "momentum", "warmup", "opt",
    "use-bn-sync", "skip-scheduler", "lr-scheduler", "lr-cooldown-end", "lr-cooldown-power", "accum-freq",
    "grad-clip-norm", "siglip", "loss-dist-impl", "local-loss", "gather-with-grad",
    # model
    "model", "pretrained", "pretrained-image", "lock-image", "lock-image-unlocked-groups",
    "lock-image-freeze-bn-stats", "lock-text", "lock-text-unlocked-layers", "lock-text-freeze-layer-norm",
    "force-context-length", "force-image-size", "force-quick-gelu", "force-patch-dropout", "force-custom-text",
    "cache-dir", "grad-checkpointing", "torchcompile", "use-bnb-linear", "precision",
    # distributed
    "device", "dist-url", "dist-backend", "ddp-static-graph", "no-set-device-rank", "seed",
    # logging and checkpoints
    "logs", "log-local", "name", "report-to", "wandb-notes", "wandb-project-name", "debug", "copy-codebase",
    "log-every-n-steps", "save-frequency", "save-most-recent", "resume", "delete-previous-checkpoint", "remote-sync",
    "remote-sync-frequency", "remote-sync-protocol",
    # distillation, CoCa
    "distill-model", "distill-pretrained", "coca-caption-loss-weight", "coca-contrastive-loss-weight",
)  # fmt: skip

_ONLY_3 = ("horovod", "torchscript", "trace")

_AUDIO = (
    "audio-ext", "pretrained-audio", "audio-fill", "audio-trunc", "audio-fusion", "audio-int16-normalize",
    "audio-zeroshot-dataset", "audio-zeroshot-split", "audio-zeroshot-audio-key", "audio-zeroshot-target-key",
    "audio-zeroshot-class-key", "audio-zeroshot-template", "audio-zeroshot-workers",
    "audio-zeroshot-multiprocessing-context", "audio-multiprocessing-context", "audio-layer-decay",
)  # fmt: skip

_ONLY_MAIN = (
    # data
    "image-key", "max-image-pixels", "text-key", "json-text-key", "json-text-key-probs", "length-bucketing",
    "bucket-pool", "bucket-chunk", "bucket-prefetch-pools", "text-pad-multiple",
    # evaluation
    "val-retrieval-chunk-size", "val-retrieval-precision",
    # optimisation; visual-layer-decay is another name of image-layer-decay
    "opt-kwargs", "opt-fallback-list", "text-layer-decay", "image-layer-decay", "visual-layer-decay", "wd-exclude",
    "text-pooler-own-group",
    # model and engine
    "torchcompile-strategy", "torchcompile-backend", "torchcompile-mode", "fsdp", "fsdp-no-reshard-after-forward",
    "fsdp-offload-cpu", "fsdp-checkpoint",
    # logging
    "log-metric-every-n-steps", "train-loss-ema-samples",
    # NaFlex
    "use-naflex", "force-naflex-vision", "naflex-num-train-image-tokens", "naflex-patch-sizes",
    "naflex-patch-size-probs", "naflex-seq-lens", "naflex-seq-len-probs", "naflex-max-tokens-per-batch",
    "naflex-max-text-tokens", "naflex-batch-divisor", "naflex-loss-scale", "naflex-pad-multiple",
    *_AUDIO,
)  # fmt: skip

VERSION_3: tuple[str, ...] = (*_BOTH, *_ONLY_3)
"""The flags of open_clip 3.3.0."""

MAIN: tuple[str, ...] = (*_BOTH, *_ONLY_MAIN)
"""The flags of open_clip's main branch, "4.2.0.dev0" of June 2026."""

NEVER: dict[str, str] = {
    "horovod": "torch's own engine takes its place: leave the flag out",
    "torchscript": "TorchScript is no longer developed: leave the flag out",
    "trace": "tracing was for evaluation only: use clip-eval",
    "use-bnb-linear": "8-bit matrix products are not here: --precision amp_bf16 is fast where the hardware is",
    "naflex-max-text-tokens": "it is about GenLIP, which is not here; --force-context-length cuts captions",
    "naflex-pad-multiple": "it is about sound; images fill their length as it is drawn from --naflex-seq-lens",
    **dict.fromkeys(_AUDIO, "clip-train trains on images and texts, not on sound"),
}
"""Flags that are refused -> what to do instead."""

_PACKED = "captions are computed on their own tokens alone, without padding, in whatever order they come"
NOT_NEEDED: dict[str, tuple[int, str]] = {
    "length-bucketing": (0, _PACKED),
    "bucket-pool": (1, _PACKED),
    "bucket-chunk": (1, _PACKED),
    "bucket-prefetch-pools": (1, _PACKED),
    "text-pad-multiple": (1, _PACKED),
}
"""Flags that are taken, and said to change nothing -> number of their values, and why. They are no fields."""
