"""From samples to batches: what is fixed, what is random, who sees what, and what becomes of broken files."""

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

from spikeformers.data import EventData, ImageData, TestSet, TrainingSet, data_type, test_loader, train_loader
from spikeformers.data.loading import collate
from spikeformers.data.order import Shared, Shuffled
from spikeformers.data.samples import PADDING_LABEL
from spikeformers.data.splits import fold_of, held_out_of

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


def test_batches_do_not_depend_on_the_number_of_workers(digits):
    alone = list(train_loader(TrainingSet(digits, seed=1), epoch=2))
    helped = list(train_loader(TrainingSet(ImageData(**{**vars(digits), "workers": 2}), seed=1), epoch=2))
    assert len(alone) == 1437 // 64
    for (images, labels), (other_images, other_labels) in zip(alone, helped, strict=True):
        assert torch.equal(images, other_images) and torch.equal(labels, other_labels)


def test_the_order_changes_with_epoch_and_seed_and_repeats():
    def order(seed, epoch):
        sampler = Shuffled(100, 10, seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(1, 3) == order(1, 3)
    assert {epoch for _, epoch in order(1, 3)} == {3}
    orders = [[index for index, _ in order(*key)] for key in ((1, 3), (1, 4), (2, 3))]
    assert all(sorted(indices) == list(range(100)) for indices in orders)
    assert orders[0] != orders[1] and orders[0] != orders[2]


@pytest.mark.parametrize("world", [2, 4])
def test_processes_share_the_batches_of_one(world):
    one = list(Shuffled(103, 20, seed=0))
    shares = [list(Shuffled(103, 20, 0, rank, world)) for rank in range(world)]
    assert len(one) == len(Shuffled(103, 20, seed=0)) == 100
    local = 20 // world
    for step in range(5):
        joint = [key for share in shares for key in share[step * local : (step + 1) * local]]
        assert sorted(joint) == sorted(one[step * 20 : (step + 1) * 20])


@pytest.mark.parametrize(("size", "world"), [(10, 1), (10, 3), (2, 4), (12, 4)])
def test_every_test_image_counts_once(size, world):
    shares = [list(Shared(size, rank, world)) for rank in range(world)]
    assert {len(share) for share in shares} == {len(Shared(size, 0, world))}
    keys = [key for share in shares for key in share]
    assert sorted(key for key in keys if key >= 0) == list(range(size))
    assert {~key for key in keys if key < 0} <= {size - 1}


def test_padding_carries_a_label_that_does_not_count(digits):
    images = TestSet(digits)
    assert images[359][1] in range(10)
    assert images[~359][1] == PADDING_LABEL
    assert torch.equal(images[359][0], images[~359][0])
    labels = torch.cat([labels for rank in range(7) for _, labels in test_loader(images, rank, 7)])
    assert (labels != PADDING_LABEL).sum() == 360 and len(labels) == 7 * 52


def test_batches_that_cannot_be_made(digits):
    with pytest.raises(ValueError, match="cannot be shared by 3 processes; give a multiple of 3"):
        train_loader(TrainingSet(digits, seed=0), rank=0, world=3)
    with pytest.raises(ValueError, match="batch_size is 2000 but there are only 1437 training samples"):
        train_loader(TrainingSet(ImageData(**{**vars(digits), "batch_size": 2000}), seed=0))


def test_repeated_augmentation_shows_fewer_images_more_often():
    plain, repeated = (Shuffled(20, 6, seed=1, repeats=repeats, epoch=3) for repeats in (1, 3))
    assert len(list(repeated)) == len(list(plain)) == 18
    keys = list(repeated)
    assert [draw for _, draw in keys] == [9, 10, 11] * 6
    assert [index for index, _ in keys[::3]] == [index for index, _ in keys[1::3]] == [index for index, _ in keys[2::3]]
    assert [index for index, _ in keys[::3]] == [index for index, _ in plain][:6]
    shares = [list(Shuffled(20, 6, seed=1, repeats=3, epoch=3, rank=rank, world=3)) for rank in range(3)]
    assert [share[0][0] for share in shares] == [keys[0][0]] * 3  # the copies meet in one step, on different processes


def test_shards_are_shuffled_and_then_what_is_in_a_few_of_them():
    sampler = Shuffled(200, 10, seed=1, shards=[10] * 20)
    order = sampler.order().tolist()
    assert sorted(order) == list(range(200)) and order != list(range(200))
    assert len({index // 10 for index in order[:80]}) == len({index // 10 for index in order[80:160]}) == 8
    assert [index // 10 for index in order[:10]] != [order[0] // 10] * 10
    sampler.set_epoch(1)
    assert sampler.order().tolist() != order


def test_accumulated_batches_are_parts_of_the_step(digits):
    samples = TrainingSet(digits, seed=3)
    whole, parts = (next(iter(train_loader(samples, accumulate=n))) for n in (1, 4))
    assert len(parts[1]) == 16 and torch.equal(parts[0], whole[0][:16]) and torch.equal(parts[1], whole[1][:16])
    with pytest.raises(ValueError, match="cannot be shared by 2 processes in 3 accumulated batches; give a multiple of 6"):
        train_loader(samples, world=2, accumulate=3)


def test_a_continued_epoch_leaves_out_what_was_seen(digits):
    samples = TrainingSet(digits, seed=3)
    labels = [batch[1].tolist() for batch in train_loader(samples, epoch=2, accumulate=2)]
    loader = train_loader(samples, epoch=2, accumulate=2, done=5)
    assert [batch[1].tolist() for batch in loader] == labels[5:] and len(loader) == len(labels)
    loader.sampler.set_epoch(2)  # as Lightning does; the epoch is the same
    assert len(list(loader)) == len(labels) - 5
    loader.sampler.set_epoch(3)
    assert len(list(loader)) == len(labels)


def test_sequences_have_their_batch_axis_second():
    images, labels = collate([(torch.zeros(3, 4, 5), 1), (torch.ones(3, 4, 5), 2)])
    assert images.shape == (2, 3, 4, 5) and labels.tolist() == [1, 2]
    sequences, _ = collate([(torch.zeros(7, 2, 4, 5), 1), (torch.ones(7, 2, 4, 5), 2)])
    assert sequences.shape == (7, 2, 2, 4, 5) and sequences[:, 1].all() and not sequences[:, 0].any()


def test_folds_test_every_sample_once_and_spread_the_classes():
    labels = [0] * 11 + [1] * 7 + [2] * 5
    folds = fold_of(labels, 5)
    assert sorted(np.bincount(folds)[1:].tolist()) == [4, 4, 5, 5, 5]
    for label in range(3):
        counts = np.bincount(folds[np.array(labels) == label], minlength=6)[1:]
        assert counts.max() - counts.min() <= 1
    assert fold_of(labels, 5).tolist() == folds.tolist()
    with pytest.raises(ValueError, match="data.folds is 6, but the class 2 has only 5 samples"):
        fold_of(labels, 6)


def test_folds_divide_the_training_samples():
    sets = [(TrainingSet(data, 0), TestSet(data)) for data in (ImageData(folds=4, fold=k, **GREY) for k in (1, 2, 3, 4))]
    tested = [index for _, test in sets for index in test.indices]
    assert sorted(tested) == list(range(1437))
    for training, test in sets:
        assert sorted([*training.indices, *test.indices]) == list(range(1437))
    assert sets[0][1][0][1] == sets[0][0].source[sets[0][1].indices[0]][1]


def test_samples_are_held_out_evenly_and_tested_once():
    data = ImageData(holdout=100, **GREY)
    training, held_out, test = TrainingSet(data, 0), TestSet(data, held_out=True), TestSet(data)
    assert sorted([*training.indices, *held_out.indices]) == list(range(1437))
    counts = np.bincount([held_out.source.labels[index] for index in held_out.indices])
    assert counts.tolist() == [10] * 10
    assert len(test) == 360 and torch.equal(test[3][0], TestSet(ImageData(**GREY))[3][0])
    assert torch.equal(held_out[0][0], data.transform(training=False)(training.source[held_out.indices[0]][0]))


def test_how_many_are_held_out():
    labels = [0] * 50 + [1] * 5
    chosen = held_out_of(labels, 7)
    assert np.bincount(np.array(labels)[chosen]).tolist() in ([4, 3], [3, 4])
    assert held_out_of(labels, 7).tolist() == chosen.tolist() and held_out_of(labels, 54).sum() == 54
    with pytest.raises(ValueError, match="data.holdout is 55, and there are only 55 training samples"):
        held_out_of(labels, 55)
    for options, message in (({"holdout": -1}, "data.holdout is -1"), ({"holdout": 5, "folds": 2}, "leave out data.holdout")):
        with pytest.raises(ValueError, match=message):
            ImageData(**options, **GREY)


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
        assert samples.left_out == f"2 of 8 could not be read and were left out: {folder}/dark/1.png, {folder}/light/3.png"


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


def test_the_name_decides_between_images_and_events():
    assert data_type("nmnist") is data_type("events") is EventData
    assert data_type("folder") is data_type(None) is data_type("unknown") is ImageData


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
