import pytest
import torch

import spikeformers

SMALL = {"dims": (8, 16, 24, 32), "depths": (1, 1, 1, 1, 1), "tau": 1.5}


@pytest.fixture(autouse=True)
def threads(one_thread):
    pass


@pytest.fixture(scope="session")
def network():
    """Makes a small network for a task around a small Meta-SpikeFormer whose neurons fire."""

    def make(task: str, num_classes: int = 4, time_steps: int = 2, images=None, **options):
        torch.manual_seed(0)
        body = spikeformers.create_model("meta_spikeformer_15m", num_classes=0, time_steps=time_steps, **SMALL)
        images = torch.randn(2, 3, 64, 96) if images is None else images
        norms = [module for module in body.modules() if isinstance(module, torch.nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = 1.0
        with torch.no_grad():
            body.train()(images)
        for norm in norms:
            norm.momentum = 0.1
        if task != "semantic_fpn":
            options = {
                "min_size": 64,
                "max_size": 128,
                "box_score_thresh": 0.0,
                "rpn_post_nms_top_n_test": 50,
            } | options
            options |= {"box_detections_per_img": 10}
        return spikeformers.create_model(task, backbone=body, num_classes=num_classes, width=16, **options).eval()

    return make


@pytest.fixture
def targets():
    """Two images of different sizes, with two objects and with none, and what a detector is to answer."""
    generator = torch.Generator().manual_seed(0)
    images = [torch.rand(3, 64, 96, generator=generator), torch.rand(3, 80, 64, generator=generator)]
    masks = torch.zeros(2, 64, 96, dtype=torch.uint8)
    masks[0, 10:40, 5:50] = 1
    masks[1, 20:60, 40:90] = 1
    boxes = torch.tensor([[5.0, 10.0, 50.0, 40.0], [40.0, 20.0, 90.0, 60.0]])
    some = {"boxes": boxes, "labels": torch.tensor([1, 3]), "masks": masks}
    none = {
        "boxes": torch.zeros(0, 4),
        "labels": torch.zeros(0, dtype=torch.long),
        "masks": torch.zeros(0, 80, 64, dtype=torch.uint8),
    }
    return images, [some, none]
