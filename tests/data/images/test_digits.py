"""scikit-learn's digits."""

import hashlib

import numpy as np

from spikeformers.data.images.digits import Digits


def test_digits_are_split_once_and_for_all():
    train, test = Digits(training=True), Digits(training=False)
    assert (len(train), len(test)) == (1437, 360)
    assert test.classes == list("0123456789")
    assert np.bincount(test.labels).tolist() == [36, 36, 35, 37, 36, 37, 36, 36, 35, 36]
    digest = hashlib.sha256(test.images.tobytes() + bytes(test.labels)).hexdigest()
    assert digest.startswith("50633b623f555b34"), "the test digits changed, so results are no longer comparable"


def test_digits_use_the_whole_range_of_grey():
    image, label = Digits(training=True)[0]
    assert (image.size, image.mode, image.getextrema()) == ((8, 8), "L", (0, 255))
    assert isinstance(label, int)
