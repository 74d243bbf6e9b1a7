"""Batches: workers, padding, accumulation, and epochs that are continued."""

import pytest
import torch

from spikeformers.data import ImageData, TestSet, TrainingSet, test_loader, train_loader
from spikeformers.data.loading import collate
from spikeformers.data.samples import PADDING_LABEL

GREY = {"channels": 1, "mean": (0.5,), "std": (0.25,)}


@pytest.fixture(scope="module")
def digits():
    return ImageData(img_size=16, batch_size=64, erase=0.5, **GREY)


def test_batches_do_not_depend_on_the_number_of_workers(digits):
    alone = list(train_loader(TrainingSet(digits, seed=1), epoch=2))
    helped = list(train_loader(TrainingSet(ImageData(**{**vars(digits), "workers": 2}), seed=1), epoch=2))
    assert len(alone) == 1437 // 64
    for (images, labels), (other_images, other_labels) in zip(alone, helped, strict=True):
        assert torch.equal(images, other_images) and torch.equal(labels, other_labels)


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


def test_accumulated_batches_are_parts_of_the_step(digits):
    samples = TrainingSet(digits, seed=3)
    whole, parts = (next(iter(train_loader(samples, accumulate=n))) for n in (1, 4))
    assert len(parts[1]) == 16 and torch.equal(parts[0], whole[0][:16]) and torch.equal(parts[1], whole[1][:16])
    with pytest.raises(
        ValueError, match="cannot be shared by 2 processes in 3 accumulated batches; give a multiple of 6"
    ):
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
