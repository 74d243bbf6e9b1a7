"""Folds and samples that are held out."""

import numpy as np
import pytest
import torch

from spikeformers.data import ImageData, TestSet, TrainingSet
from spikeformers.data.splits import fold_of, held_out_of

GREY = {"channels": 1, "mean": (0.5,), "std": (0.25,)}


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
    sets = [
        (TrainingSet(data, 0), TestSet(data)) for data in (ImageData(folds=4, fold=k, **GREY) for k in (1, 2, 3, 4))
    ]
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
    for options, message in (
        ({"holdout": -1}, "data.holdout is -1"),
        ({"holdout": 5, "folds": 2}, "leave out data.holdout"),
    ):
        with pytest.raises(ValueError, match=message):
            ImageData(**options, **GREY)
