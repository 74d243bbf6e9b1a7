"""Samples: what augmentation depends on, broken files, missing classes."""

import errno
import io
import random
import struct
import tarfile
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from spikeformers.data import ImageData, TestSet, TrainingSet, test_loader, train_loader
from spikeformers.data.samples import PADDING_LABEL

GREY = {"channels": 1, "mean": (0.5,), "std": (0.25,)}


@pytest.fixture(scope="module")
def digits():
    return ImageData(img_size=16, batch_size=64, erase=0.5, **GREY)


def test_augmentation_depends_on_seed_epoch_and_index_only(digits):
    images, again = TrainingSet(digits, seed=1), TrainingSet(digits, seed=1)
    for i in (5, 9, 3):
        again[i, 7]
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    assert torch.equal(images[3, 7][0], again[3, 7][0])
    assert not torch.equal(images[3, 7][0], images[3, 8][0])
    assert not torch.equal(images[3, 7][0], TrainingSet(digits, seed=2)[3, 7][0])


def test_augmentation_leaves_the_random_numbers_of_training_alone(digits):
    images = TrainingSet(digits, seed=1)
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    want = random.random(), np.random.rand(), torch.rand(1).item()
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    images[0, 0]
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == want


def test_a_batch_of_items_is_its_items(digits):
    images, keys = TrainingSet(digits, seed=1), [(5, 2), (9, 0), (5, 3)]
    for (image, label), key in zip(images.__getitems__(keys), keys, strict=True):
        assert torch.equal(image, images[key][0]) and label == images[key][1]


@pytest.fixture
def damaged(tmp_path):
    """Two classes with four images each, two of which are broken in different ways."""
    for split in ("train", "val"):
        for label, name in enumerate(("dark", "light")):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(4):
                pixels = np.random.default_rng(i).integers(0, 100, (16, 16), np.uint8) + 100 * label
                Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / split / name / f"{i}.png")
        whole = (tmp_path / split / "dark" / "1.png").read_bytes()
        (tmp_path / split / "dark" / "1.png").write_bytes(whole[: len(whole) // 2])
        (tmp_path / split / "light" / "3.png").write_text("no image")
    return tmp_path


def test_an_image_that_claims_to_be_huge_is_broken(damaged):
    path = damaged / "train" / "dark" / "0.png"
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">II", 100_000, 100_000)  # width and height in the header
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)
    training = TrainingSet(ImageData("folder", str(damaged), img_size=8, **GREY), 0)
    with pytest.warns(UserWarning, match="cannot read .*dark/0.png .*exceeds limit"):
        training[0, 0]


def test_the_machines_trouble_is_not_the_files(damaged, monkeypatch):
    training = TrainingSet(ImageData("folder", str(damaged), img_size=8, **GREY), 0)

    def fail(index):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(type(training.source), "__getitem__", lambda self, index: fail(index))
    with pytest.raises(OSError, match="Too many open files"):
        training[0, 0]
    assert training.left_out == ""


@pytest.mark.parametrize("workers", [0, 2])
def test_broken_images_are_named_counted_and_left_out(damaged, workers):
    data = ImageData("folder", str(damaged), img_size=8, batch_size=4, workers=workers, **GREY)
    training, test = TrainingSet(data, 0), TestSet(data)
    assert training.left_out == ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        labels = torch.cat([labels for _, labels in train_loader(training)])
        tested = torch.cat([labels for _, labels in test_loader(test)])
    assert len(labels) == 8 and set(labels.tolist()) == {0, 1}
    assert sorted(tested.tolist()) == [PADDING_LABEL] * 2 + [0] * 3 + [1] * 3
    for samples, split in ((training, "train"), (test, "val")):
        folder = damaged / split
        assert (
            samples.left_out == f"2 of 8 could not be read and were left out: {folder}/dark/1.png, {folder}/light/3.png"
        )


def test_a_broken_image_is_warned_of_once(damaged):
    training = TrainingSet(ImageData("folder", str(damaged), img_size=8, **GREY), 0)
    with pytest.warns(UserWarning, match=r"cannot read .*dark/1.png \(.*\); it is left out") as caught:
        image, label = training[1, 0]
        again, _ = training[1, 5]
    assert len(caught) == 1 and label == 0
    assert torch.equal(image, training[1, 0][0]) and not torch.equal(image, again)


def test_strict_stops_at_a_broken_image(damaged):
    data = ImageData("folder", str(damaged), img_size=8, strict=True, **GREY)
    with pytest.raises(ValueError, match=r"cannot read .*light/3.png .*mend it, or leave data.strict \(--strict\) out"):
        TrainingSet(data, 0)[7, 0]


def test_nothing_to_read_at_all(damaged):
    for path in (damaged / "val").glob("*/*.png"):
        path.write_text("no image")
    with pytest.raises(ValueError, match="none of the 8 samples can be read"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        TestSet(ImageData("folder", str(damaged), img_size=8, **GREY))[0]


def test_classes_without_a_sample_are_named(tmp_path):
    for split, names in (("train", ["0_1.png"]), ("val", ["1_1.png"])):
        tar = tmp_path / f"{split}-0.tar"
        with tarfile.open(tar, "w") as file:
            for name in names:
                image = io.BytesIO()
                Image.new("RGB", (4, 4)).save(image, "PNG")
                for ending, content in ((".png", image.getvalue()), (".cls", name[:1].encode())):
                    member = tarfile.TarInfo(name[:3] + ending)
                    member.size = len(content)
                    file.addfile(member, io.BytesIO(content))
    (tmp_path / "classes.txt").write_text("cat\ndog\nyeti\n")
    data = ImageData("webdataset", str(tmp_path))
    with pytest.warns(UserWarning, match="no training sample is of 2 of the 3 classes: dog, yeti"):
        TrainingSet(data, 0)
    with pytest.warns(UserWarning, match="no test sample is of 2 of the 3 classes: cat, yeti"):
        TestSet(data)
