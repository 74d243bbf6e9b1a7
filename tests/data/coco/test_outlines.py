"""Run lengths and masks."""

import time

import numpy as np
import pytest

from spikeformers.data.coco.outlines import Outlines, uncompressed


def test_compressed_run_lengths_are_those_of_the_library():
    mask_library = pytest.importorskip("faster_coco_eval.core.mask")
    masks = np.random.default_rng(0).random((300, 41, 7)) < np.linspace(0, 1, 7)
    for mask in np.moveaxis(masks, 2, 0).astype(np.uint8):
        counts = mask_library.encode(np.asfortranarray(mask))["counts"]
        runs = uncompressed(counts.decode() if isinstance(counts, bytes) else counts)
        assert np.array_equal(np.repeat(np.arange(len(runs)) % 2, runs).reshape(41, 300).T, mask)


def test_compressed_run_lengths_take_linear_time():
    text = "00" + "1" * 400_000  # one per character; a run of ever more digits was quadratic
    start = time.perf_counter()
    runs = uncompressed(text)
    with pytest.raises(ValueError, match="more than 10 characters"):
        uncompressed("o" * 400_000)
    assert len(runs) == len(text) and time.perf_counter() - start < 5


def test_masks_that_take_gigabytes_are_refused():
    many = Outlines([([np.array([0.0, 0, 1, 0, 1, 1])], False)] * 3)
    with pytest.raises(
        ValueError, match="the masks of its 3 objects on 50000x50000 pixels take 7 GiB; give --data.masks false"
    ):
        many.masks(range(3), 50_000, 50_000)
