"""Sizes of images, anchors and regions of feature maps."""

import pytest
import torch
from torch.testing import assert_close
from torchvision.ops import roi_align

from spikeformers.tasks.regions import TemporalRoIAlign, anchors_of

STRIDES = (4, 8, 16, 16)


def test_regions_read_the_map_that_fits_their_size_at_its_true_stride():
    side = 512
    align = TemporalRoIAlign(STRIDES, 7)
    # every map holds its own number and the horizontal place of its pixels' centres in the image
    maps = {}
    for level, stride in enumerate(STRIDES):
        places = (torch.arange(side // stride) * stride).float()
        maps[str(level)] = torch.stack(
            [torch.full((side // stride, side // stride), float(level)), places.expand(side // stride, -1)]
        )[None, None]
    sides = torch.tensor([40.0, 111.0, 113.0, 223.0, 225.0, 447.0, 449.0])
    boxes = torch.stack([torch.full((7,), 20.0), torch.full((7,), 20.0), 20 + sides, 20 + sides], dim=1)
    found = align(maps, [boxes], [(side, side)])
    assert found.shape == (1, 7, 2, 7, 7)
    assert found[0, :, 0].mean((1, 2)).tolist() == [0, 0, 1, 1, 2, 2, 3]
    assert_close(found[0, :, 1].mean((1, 2)), 20 + sides / 2, atol=1.0, rtol=0)


def test_regions_are_aligned_at_every_time_step():
    torch.manual_seed(0)
    maps = {str(i): torch.randn(3, 2, 4, 64 // stride, 64 // stride) for i, stride in enumerate(STRIDES)}
    boxes = [torch.tensor([[3.0, 4.0, 30.0, 40.0]]), torch.tensor([[1.0, 1.0, 50.0, 60.0], [5.0, 9.0, 44.0, 20.0]])]
    found = TemporalRoIAlign(STRIDES, 7)(maps, boxes, [(64, 64)] * 2)
    assert found.shape == (3, 3, 4, 7, 7)
    for step in range(3):
        want = roi_align(maps["0"][step], boxes, 7, 1 / 4, sampling_ratio=2)
        assert_close(found[step], want)


def test_anchors_stand_at_the_strides_of_the_maps(network):
    model = network("faster_rcnn")
    x = torch.rand(1, 3, 64, 128)
    maps = model.backbone(x)
    images = model.transform([x[0]])[0]
    anchors = model.rpn.anchor_generator(images, list(maps.values()))[0]
    places = [(64 // stride) * (128 // stride) for stride in (4, 8, 16, 16, 32)]
    assert len(anchors) == 3 * sum(places)
    for level, stride in enumerate((4, 8, 16, 16, 32)):
        own = anchors[3 * sum(places[:level]) : 3 * sum(places[: level + 1])]
        centres = (own[:, :2] + own[:, 2:]) / 2
        assert centres.unique(dim=0)[:, 0].unique().diff().unique().tolist() == [stride], level
        assert_close((own[:3, 2:] - own[:3, :2]).prod(1).sqrt(), torch.full((3,), 32.0 * 2**level), rtol=0.05, atol=0)


@pytest.mark.parametrize(
    ("levels", "want"),
    [
        (1, ((32, 64, 128, 256, 512),)),
        (2, ((32, 64, 128), (128, 256, 512))),
        (4, ((32, 64), (64, 128), (128, 256), (256, 512))),
        (5, ((32,), (64,), (128,), (256,), (512,))),
    ],
)
def test_all_levels_have_as_many_anchors_and_every_size_is_there(levels, want):
    assert anchors_of(levels, (32, 64, 128, 256, 512)) == want


@pytest.mark.parametrize("shape", [(3, 8, 2000), (3, 1, 500), (3, 700, 2)])
def test_strips_keep_a_pixel(network, shape):
    """max_size 128 would leave none of their width."""
    model = network("mask_rcnn")
    with torch.no_grad():
        (result,) = model([torch.rand(shape)])
    assert result["masks"].shape[2:] == shape[1:]
    assert (result["boxes"].amax(0, keepdim=True) <= torch.tensor([shape[2], shape[1]] * 2)).all()
    box = torch.tensor([[0.0, 0.0, shape[2], shape[1]]])
    target = {"boxes": box, "labels": torch.tensor([1]), "masks": torch.ones(1, *shape[1:], dtype=torch.uint8)}
    resized, scaled = model.transform.resize(torch.rand(shape), target)
    assert max(resized.shape[1:]) == 128 and min(resized.shape[1:]) == 1
    assert (
        scaled["boxes"].tolist() == [[0, 0, *resized.shape[:0:-1]]] and scaled["masks"].shape[1:] == resized.shape[1:]
    )
    assert torch.equal(target["boxes"], box)
    losses = model.train()([torch.rand(shape)], [target])
    assert all(loss.isfinite() for loss in losses.values())


def test_other_images_are_resized_as_torchvision_does(network):
    from torchvision.models.detection.transform import GeneralizedRCNNTransform

    ours = network("faster_rcnn", image_mean=[0.1, 0.2, 0.3], image_std=[1.0, 2.0, 3.0]).transform
    theirs = GeneralizedRCNNTransform(
        ours.min_size, ours.max_size, [0.1, 0.2, 0.3], [1.0, 2.0, 3.0], ours.size_divisible
    ).eval()
    images = [torch.rand(3, 40, 90), torch.rand(3, 300, 20)]
    got, want = ours([*images]), theirs([*images])
    assert torch.equal(got[0].tensors, want[0].tensors) and got[0].image_sizes == want[0].image_sizes
    assert str(ours).partition("(")[2] == str(theirs).partition("(")[2]


def test_an_image_without_pixels_is_named(network):
    with pytest.raises(ValueError, match="an image of 0x8 pixels"):
        network("faster_rcnn")([torch.rand(3, 8, 0)])
