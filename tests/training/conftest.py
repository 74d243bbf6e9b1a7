"""A recipe that trains in a second: two classes of 16-pixel images, bright at the left or at the right."""

import signal

import numpy as np
import pytest
from PIL import Image

from spikeformers.training.recipe import Recipe

MODEL = {"embed_dim": 16, "depth": 1, "num_heads": 2, "time_steps": 2}


@pytest.fixture(autouse=True)
def ctrl_c():
    """Processes in the background of a shell ignore Ctrl-C; the tests need it heard."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """Folder with 2 x 10 training and 7 test images; 7 cannot be shared evenly."""
    root, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for split, counts in (("train", (10, 10)), ("val", (4, 3))):
        for label, (name, count) in enumerate(zip(("left", "right"), counts, strict=True)):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = random.integers(0, 100, (16, 16), np.uint8)
                pixels[:, 8 * label : 8 * label + 8] += 100
                Image.fromarray(pixels).save(root / split / name / f"{i}.png")
    return root


@pytest.fixture
def config(pictures):
    """The recipe as a dict, to be changed by tests."""
    return {
        "model": {"name": "spikingformer_cifar_2_256", "kwargs": {**MODEL, "drop_path_rate": 0.2}},
        "data": {
            "name": "folder",
            "root": str(pictures),
            "img_size": 16,
            "channels": 1,
            "mean": [0.4],
            "std": [0.2],
            "scale": [0.8, 1.0],
            "hflip": 0.0,
            "batch_size": 4,
        },
        "training": {"epochs": 3, "lr": 0.01, "mixup": 0.2, "label_smoothing": 0.1},
        "trainer": {"accelerator": "cpu"},
        "seed": 1,
    }


@pytest.fixture
def recipe(config):
    return Recipe.from_dict(config)
