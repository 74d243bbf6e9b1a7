"""torchvision's data sets."""

import numpy as np
import torch
from torch.testing import assert_close

from spikeformers.data import ImageData, TestSet


def test_mnist_files_as_torchvision_keeps_them(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for split, count in (("train", 3), ("t10k", 2)):
        pixels = np.arange(count * 784, dtype=np.uint8).tobytes()
        header = np.array([2051, count, 28, 28], ">i4").tobytes()
        (raw / f"{split}-images-idx3-ubyte").write_bytes(header + pixels)
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(np.array([2049, count], ">i4").tobytes() + bytes(range(count)))
    test = TestSet(ImageData("mnist", str(tmp_path), img_size=28, channels=1, mean=(0,), std=(1,)))
    assert len(test) == 2 and test[1][1] == 1
    assert_close(test[0][0].flatten()[:256], torch.arange(256) / 255)
