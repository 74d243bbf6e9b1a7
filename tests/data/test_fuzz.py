"""Damaged and hostile files: whatever is wrong with an image, a mask or annotations is one ValueError, soon and in little memory."""

import copy
import io
import json
import os
import random
import resource
import time

import numpy as np
import pytest
from PIL import Image

from spikeformers.data import CocoData, MaskData, TestSet, TrainingSet
from spikeformers.data.reading import FORMATS, formats, upright_image

LONGEST, MOST = 10, 2**30  # seconds, and bytes beyond what sound files take
ODD = (0, 1, 2, 127, 128, 255)


def mutated(content, rng):
    """A few bytes changed, cut out, put in, doubled or cut off, the first hundred more often than the rest."""
    content = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        place = rng.randrange(min(len(content), rng.choice((40, 100, len(content)))) or 1)
        kind = rng.randrange(6)
        if kind == 0 and content:
            content[place] = rng.randrange(256)
        elif kind == 1 and content:
            content[place] = rng.choice(ODD)
        elif kind == 2:
            content[place : place + 4] = rng.choice(
                (b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\xff\xff", b"\0\0\0\0")
            )
        elif kind == 3:
            del content[place : place + rng.choice((1, 2, 50))]
        elif kind == 4:
            content[place:place] = content[place : place + rng.choice((1, 4, 200))]
        else:
            del content[place:]
    return bytes(content)


def pictures():
    """A file of each format, modes of all kinds, with EXIF."""
    ramp = np.linspace(0, 255, 40 * 30).reshape(40, 30)
    colour = np.stack([ramp, ramp[::-1], ramp[:, ::-1]], -1).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a photo"
    images = [
        Image.fromarray(colour),
        Image.fromarray(ramp.astype(np.uint8)),
        Image.fromarray(colour).convert("P"),
        Image.fromarray(ramp > 99),
    ]
    images += [
        Image.fromarray(colour).convert("RGBA"),
        Image.fromarray(colour).convert("CMYK"),
        Image.fromarray((ramp * 257).astype(np.uint16)),
    ]
    images += [Image.fromarray((ramp / 255).astype(np.float32)), Image.fromarray(ramp.astype(np.int32))]
    files = []
    for form in formats():
        for image in images:
            for options in ({}, {"exif": exif}, {"compression": "tiff_lzw"}, {"progressive": True}, {"lossless": True}):
                content = io.BytesIO()
                try:
                    image.save(content, form, **options)
                except (OSError, ValueError, KeyError, TypeError):  # this format has no such mode
                    continue
                files.append(content.getvalue())
    return sorted(set(files), key=lambda content: (len(content), content))


def annotations():
    square = [2, 1, 6, 1, 6, 4, 2, 4]
    return {
        "images": [
            {"id": 7, "file_name": "b.png", "width": 10, "height": 8},
            {"id": 3, "file_name": "a.png", "width": 9, "height": 5},
        ],
        "categories": [{"id": 2, "name": "cat"}, {"id": 17, "name": "dog"}],
        "annotations": [
            {
                "id": 1,
                "image_id": 7,
                "category_id": 17,
                "bbox": [2, 1, 4, 3],
                "area": 11.5,
                "iscrowd": 0,
                "segmentation": [square],
            },
            {
                "id": 2,
                "image_id": 7,
                "category_id": 2,
                "bbox": [0, 4, 10, 4],
                "iscrowd": 1,
                "segmentation": {"size": [8, 10], "counts": [4] * 20},
            },
            {
                "id": 3,
                "image_id": 3,
                "category_id": 2,
                "bbox": [0, 0, 1, 5],
                "segmentation": {"size": [5, 9], "counts": "05X1"},
            },
        ],
    }


VALUES = [
    None,
    True,
    -1,
    0,
    1,
    2**31,
    2**63,
    10**40,
    1e9,
    1e18,
    1e300,
    float("nan"),
    float("inf"),
    -float("inf"),
    "",
    "x",
    "05X1" * 99,
    [],
    [[]],
    {},
]
VALUES += [
    [1e9] * 6,
    [[1e9] * 6],
    [[0, 0, 1e6, 0, 0, 9] * 500],
    {"size": [8, 10], "counts": "o" * 9999},
    {"size": [10**9, 10**9], "counts": [10**18]},
]


def changed(content, rng):
    """Some value anywhere in a JSON document becomes another, or an entry goes or comes twice."""
    for _ in range(rng.choice((1, 1, 2, 5))):
        place = content
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = rng.choice(keys)
            if isinstance(place[key], dict | list) and place[key] and rng.random() < 0.97:
                place = place[key]
                continue
            kind = rng.randrange(20)
            if kind < 8 and isinstance(place[key], int | float):
                place[key] *= rng.choice((-1, 0, 0.5, 2, 10, 1e4, 1e7, 1e12))
            elif kind == 8:
                del place[key]
            elif kind == 9 and isinstance(place, list):
                place.append(copy.deepcopy(place[key]))
            else:
                place[key] = copy.deepcopy(rng.choice(VALUES))
            break
    return content


class Watched:
    """Counts what becomes of files, and asserts that it takes neither much time of the processor nor much memory."""

    def __init__(self):
        self.read = self.refused = 0
        self.slowest = 0.0
        self.before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def __call__(self, read, *arguments):
        start = time.process_time()
        try:
            read(*arguments)
            self.read += 1
        except ValueError as error:
            assert str(error)
            self.refused += 1
        self.slowest = max(self.slowest, time.process_time() - start)
        assert self.slowest < LONGEST
        assert (self.more << 10) < MOST

    @property
    def more(self):
        """KiB beyond what was taken before."""
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - self.before

    def __str__(self):
        return f"{self.read} read, {self.refused} refused, slowest {self.slowest:.2f} s, {self.more >> 10} MiB more"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_1500_damaged_images(capsys):
    files, rng, watched = pictures(), random.Random(0), Watched()
    assert {Image.open(io.BytesIO(content)).format for content in files} >= set(formats()) - {"DIB"} and set(
        formats()
    ) <= set(FORMATS)
    for content in files:
        watched(upright_image, io.BytesIO(content))
    sound = watched.read, watched.refused
    for _ in range(1500):
        watched(upright_image, io.BytesIO(mutated(rng.choice(files), rng)))
    with capsys.disabled():
        print(f"\nimages: sound {sound}, all: {watched}")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_1000_damaged_annotations(tmp_path, capsys):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "train").mkdir()
    for image in annotations()["images"]:
        Image.new("RGB", (image["width"], image["height"])).save(tmp_path / "train" / image["file_name"])
    data, rng, watched = (
        CocoData(root=str(tmp_path), train="train", val="train", strict=True),
        random.Random(0),
        Watched(),
    )
    file = tmp_path / "annotations" / "instances_train.json"

    def read():
        for samples, keys in ((TestSet(data), lambda i: i), (TrainingSet(data, 0), lambda i: (i, 0))):
            for index in range(len(samples)):
                samples[keys(index)]

    file.write_text(json.dumps(annotations()))
    watched(read)
    assert watched.read == 1
    for number in range(1000):
        text = json.dumps(annotations()) if number % 3 == 0 else json.dumps(changed(annotations(), rng))
        file.write_bytes(mutated(text.encode(), rng) if number % 3 == 0 else text.encode())
        watched(read)
    with capsys.disabled():
        print(f"\nannotations: {watched}")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_500_damaged_masks(tmp_path, capsys):
    for name in ("images/training", "annotations/training"):
        os.makedirs(tmp_path / name)
    values = np.arange(40 * 30).reshape(40, 30) % 3
    Image.new("RGB", (30, 40)).save(tmp_path / "images" / "training" / "1.png")
    files = []
    for kind in (np.uint8, np.uint16, bool, np.int32):
        for form in ("PNG", "TIFF"):
            content = io.BytesIO()
            try:
                Image.fromarray(values.astype(kind)).save(content, form)
            except OSError:
                continue
            files.append(content.getvalue())
    data, rng, watched = (
        MaskData(root=str(tmp_path), val="training", classes=3, strict=True, img_size=16, size=(48, 32)),
        random.Random(0),
        Watched(),
    )
    mask = tmp_path / "annotations" / "training" / "1.png"

    def read():
        (_, target), _ = TestSet(data)[0]
        assert target.shape == (40, 30) and set(target.unique().tolist()) <= {0, 1, 2, 255}
        TrainingSet(data, 0)[0, 0]

    for content in files:
        mask.write_bytes(content)
        read()
    for _ in range(500):
        mask.write_bytes(mutated(rng.choice(files), rng))
        watched(read)
    with capsys.disabled():
        print(f"\nmasks: {watched}")
