"""Samples that are not finite."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from spikeformers.data.loading import PADDING_LABEL
from spikeformers.training.evaluation import evaluate


class ByHeart(nn.Module):
    """Logits [T, B, 2] for class 1 by the mean of the images' finite pixels, as spiking neurons never fire at NaN; infinite above 5."""

    def forward(self, x, per_step=False):
        mean = x.nan_to_num(0.0).flatten(-3).mean(-1)
        logits = torch.stack([-mean, mean], -1)
        logits = torch.where(logits.abs() > 5, math.inf, logits)
        return logits[None] if x.ndim == 4 else logits


@pytest.mark.parametrize("steps", [None, 3])
def test_samples_that_are_not_finite_are_named_and_count_as_wrong(monkeypatch, steps):
    images = torch.ones(6, 1, 2, 2) * torch.tensor([-1.0, 1, -1, 1, 1, 9]).view(6, 1, 1, 1)
    images[1, 0, 0, 0] = math.nan
    labels = torch.tensor([0, 1, 0, PADDING_LABEL, 0, 1])
    images = images if steps is None else images.expand(steps, 6, 1, 2, 2)
    batches = [(images[..., :4, :, :, :], labels[:4]), (images[..., 4:, :, :, :], labels[4:])]
    monkeypatch.setattr("spikeformers.training.evaluation.test_loader", lambda samples: batches)
    samples = SimpleNamespace(where="sample {}".format)
    with pytest.warns(UserWarning, match="2 samples hold or lead to .* wrong: sample 1, sample 5"):
        result = evaluate(ByHeart(), samples)
    assert result.samples == 5 and result.accuracy == 2 / 5
    assert math.isfinite(result.loss) and "not finite   2 samples" in result.as_text("x")
    monkeypatch.setattr("spikeformers.training.evaluation.test_loader", lambda samples: batches[:0] + [(images[..., :1, :, :, :], labels[:1])])
    assert evaluate(ByHeart(), samples).not_finite == ""
