"""What may be computed in what, and that it is what was asked for."""

from __future__ import annotations

import pytest
import torch

from clip_core.errors import ConfigError
from clip_eval.encoder import Encoder
from clip_eval.precision import compute_context, resolve_precision
from clip_eval.wds import open_dataset


def test_the_default_is_what_the_weights_are(bundle) -> None:
    assert resolve_precision(None, bundle.model) == "fp32"
    assert resolve_precision(None, bundle.model.bfloat16()) == "pure"


def test_what_cannot_be_is_refused(bundle) -> None:
    with pytest.raises(ConfigError, match="'fp8'; allowed: fp32, amp_bf16, amp, pure"):
        resolve_precision("fp8", bundle.model)
    with pytest.raises(ConfigError, match="'amp' \\(float16\\) on cpu"):
        resolve_precision("amp", bundle.model)
    with pytest.raises(ConfigError, match="loaded as bfloat16"):
        Encoder(bundle=bundle.__class__.of(bundle.model.bfloat16()), precision="fp32")


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("amp_bf16", torch.bfloat16)])
def test_products_are_computed_in_it_whatever_surrounds_it(precision, dtype) -> None:
    one = torch.ones(2, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16), compute_context(precision, torch.device("cpu")):
        assert (one @ one).dtype == dtype


def test_short_products_move_features_a_little_and_lengths_not_at_all(bundle, make_classification) -> None:
    dataset = open_dataset(make_classification())
    full = Encoder(bundle=bundle).images(dataset).features
    short = Encoder(bundle=bundle, precision="amp_bf16").images(dataset).features
    assert short.dtype == torch.float32
    torch.testing.assert_close(short.norm(dim=1), torch.ones(4), rtol=0, atol=1e-6)
    assert 0 < (full - short).abs().max() < 0.05
