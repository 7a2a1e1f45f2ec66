"""Rows of facts: the flags of open_clip 3.3.0 and main that clip-train knows by name and does not take.

`flags` registers them, so that an abbreviation means the same flag here and there, and refuses them with these words:
a flag is never ignored. A flag that is built moves from here to a field in `config`.
"""

from __future__ import annotations

__all__ = ["LATER", "NEVER"]

LATER: tuple[str, ...] = (
    # data
    "train-data-upsampling-factors", "val-data", "val-num-samples", "dataset-resampled", "image-key",
    "max-image-pixels", "text-key", "json-text-key", "json-text-key-probs", "image-resize-mode", "length-bucketing",
    "bucket-pool", "bucket-chunk", "bucket-prefetch-pools", "text-pad-multiple",
    # evaluation
    "imagenet-val", "imagenet-v2", "zeroshot-frequency", "val-frequency", "val-retrieval-chunk-size",
    "val-retrieval-precision",
    # optimisation
    "epochs-cooldown", "momentum", "opt", "opt-kwargs", "opt-fallback-list", "text-layer-decay", "image-layer-decay",
    "visual-layer-decay", "wd-exclude", "text-pooler-own-group", "use-bn-sync", "skip-scheduler", "lr-cooldown-end",
    "lr-cooldown-power",
    # model
    "pretrained-image", "lock-image", "lock-image-unlocked-groups", "lock-image-freeze-bn-stats", "lock-text",
    "lock-text-unlocked-layers", "lock-text-freeze-layer-norm", "force-context-length", "force-image-size",
    "force-quick-gelu", "force-patch-dropout", "force-custom-text", "cache-dir", "grad-checkpointing", "torchcompile",
    "torchcompile-strategy", "torchcompile-backend", "torchcompile-mode", "use-bnb-linear",
    # distributed
    "no-set-device-rank", "fsdp", "fsdp-no-reshard-after-forward", "fsdp-offload-cpu", "fsdp-checkpoint",
    # logging and checkpoints
    "log-local", "report-to", "wandb-notes", "wandb-project-name", "copy-codebase", "log-metric-every-n-steps",
    "train-loss-ema-samples", "save-frequency", "save-most-recent", "resume", "delete-previous-checkpoint",
    "remote-sync", "remote-sync-frequency", "remote-sync-protocol",
    # distillation, CoCa, NaFlex
    "distill-model", "distill-pretrained", "coca-caption-loss-weight", "coca-contrastive-loss-weight", "use-naflex",
    "force-naflex-vision", "naflex-num-train-image-tokens", "naflex-patch-sizes", "naflex-patch-size-probs",
    "naflex-seq-lens", "naflex-seq-len-probs", "naflex-max-tokens-per-batch", "naflex-max-text-tokens",
    "naflex-batch-divisor", "naflex-loss-scale", "naflex-pad-multiple",
)  # fmt: skip

_AUDIO = "clip-train trains on images and texts, not on sound"
NEVER: dict[str, str] = {
    "horovod": "torch's own engine takes its place: leave the flag out",
    "torchscript": "TorchScript is no longer developed: leave the flag out",
    "trace": "tracing was for evaluation only: use clip-eval",
    **dict.fromkeys(
        (
            "audio-ext", "pretrained-audio", "audio-fill", "audio-trunc", "audio-fusion", "audio-int16-normalize",
            "audio-zeroshot-dataset", "audio-zeroshot-split", "audio-zeroshot-audio-key",
            "audio-zeroshot-target-key", "audio-zeroshot-class-key", "audio-zeroshot-template",
            "audio-zeroshot-workers", "audio-zeroshot-multiprocessing-context", "audio-multiprocessing-context",
            "audio-layer-decay",
        ),
        _AUDIO,
    ),
}  # fmt: skip
