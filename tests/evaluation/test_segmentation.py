"""Scores of segmenters: IoU by hand, images of different sizes, and what their answers hide."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from spikeformers.evaluation import evaluate_any
from spikeformers.evaluation.segmentation import SegmentationScore, class_map, equally_large
from spikeformers.neurons import LIF

from .conftest import Fakes, Named


def test_iou_by_hand():
    score = SegmentationScore(4)
    target = torch.tensor([[0, 0, 1], [1, 1, 255]])
    found = torch.tensor([[0, 1, 1], [1, 2, 3]])  # the only pixel of class 3 does not count
    score.update(F.one_hot(found, 4).permute(2, 0, 1)[None].float(), [target])
    score.update([torch.rand(4, 2, 3)], [None])
    result = score.compute()
    assert result["ious"][:3] == [1 / 2, 2 / 4, 0.0] and math.isnan(result["ious"][3])
    assert result["miou"] == pytest.approx((1 / 2 + 2 / 4 + 0) / 3)
    assert result["accuracy"] == pytest.approx(3 / 5) and result["class_accuracy"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    score.update([F.one_hot(torch.full((2, 3), 3), 4).permute(2, 0, 1).float()], [torch.full((2, 3), 3)])
    assert score.compute()["ious"][3] == 1.0
    assert math.isnan(SegmentationScore(4).compute()["miou"])


def test_class_map_is_the_largest_resized_logit():
    logits = torch.randn(40, 5, 7)
    want = F.interpolate(logits[None], size=(31, 18), mode="bilinear", align_corners=False)[0].argmax(0)
    assert torch.equal(class_map(logits, (31, 18)), want)
    assert class_map(torch.zeros(40, 2, 2), (3, 3)).eq(0).all()  # the first of equals, as argmax has it


class Segmenter(nn.Module):
    """Logits at half the size: the image's channels."""

    def __init__(self):
        super().__init__()
        self.lif, self.batches = LIF(2.0, 1.0), []

    def forward(self, x):
        assert not self.training and not torch.is_grad_enabled()
        self.batches.append(len(x))
        self.lif(x[None])
        return F.avg_pool2d(x, 2)


def test_large_images_do_not_share_memory():
    images = [torch.empty(3, 512, 512, device="meta")] * 7 + [torch.empty(3, 2048, 1024, device="meta")] * 2
    assert equally_large(images) == [[0, 1, 2, 3], [4, 5, 6], [7], [8]]


def test_evaluate_segmentation():
    classes = [torch.randint(4, (4, 4)), torch.randint(4, (6, 4)), torch.randint(4, (4, 4))]
    images = [
        F.one_hot(found, 4).permute(2, 0, 1).float().repeat_interleave(2, 1).repeat_interleave(2, 2)
        for found in classes
    ]
    large = [found.repeat_interleave(3, 0).repeat_interleave(3, 1) for found in classes]  # not the size of the tensors
    model = Segmenter().train()
    result = evaluate_any(model, Fakes("segmentation", [(images, large), (images[:1], [None])]))
    assert model.batches == [2, 1] and result.samples == 3
    assert result.scores["accuracy"] > 0.75 and result.scores["miou"] > 0.5
    text = result.as_text("masks").splitlines()
    assert text[0].endswith("of 3 test images (masks)") and [line.split()[0] for line in text[-4:]] == [
        "a",
        "b",
        "c",
        "d",
    ]
    assert text[-1].split()[1] == f"{result.scores['ious'][3]:.2%}"


@pytest.mark.parametrize("where", ["image", "logits"])
def test_images_that_are_not_finite_are_named_and_count_as_wrong(where):
    found = torch.randint(4, (4, 4))
    image = F.one_hot(found, 4).permute(2, 0, 1).float().repeat_interleave(2, 1).repeat_interleave(2, 2)
    broken = image.clone()
    broken[0, 0, 0] = math.nan if where == "image" else 9

    class Careless(Segmenter):
        def forward(self, x):
            logits = super().forward(x.nan_to_num(0.0))  # as spiking neurons do, which never fire at NaN
            return logits if where == "image" else torch.where(x.amax((1, 2, 3), keepdim=True) > 2, math.inf, logits)

    batches = [([image, broken], [found, found]), ([image, image], [None, found])]
    with pytest.warns(
        UserWarning, match="1 samples hold or lead to numbers that are not finite .* count as wrong: 1.png"
    ):
        result = evaluate_any(Careless(), Named("segmentation", batches))
    assert result.samples == 3 and result.scores["accuracy"] == pytest.approx(2 / 3)
    assert "not finite   1 samples" in result.as_text("masks")


def test_classes_that_no_pixel_has_are_named():
    found = torch.tensor([[0, 1], [1, 0]])
    image = F.one_hot(found, 4).permute(2, 0, 1).float().repeat_interleave(2, 1).repeat_interleave(2, 2)
    result = evaluate_any(Segmenter(), Fakes("segmentation", [([image], [found])]))
    assert result.scores["miou"] == 1 and result.absent == ["c", "d"] and result.scores["pixels"] == [2, 2, 0, 0]
    lines = result.as_text("masks").splitlines()
    assert "absent       no test image has a pixel of c, d; the scores say nothing of them" in lines
    assert [line.split() for line in lines[-2:]] == [["c", "-", "absent"], ["d", "-", "absent"]]
