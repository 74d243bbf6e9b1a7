"""The recipes: each is complete, fits its model, and says what one wants to know before starting it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from spikeformers.data.randomness import drawing_from
from spikeformers.models import create_model
from spikeformers.training.learner import peak_lr
from spikeformers.training.recipe import Recipe

RECIPES = sorted((Path(__file__).parents[1] / "src" / "spikeformers" / "recipes").glob("*.yaml"))
DENSE = [path for path in RECIPES if path.stem.startswith(("mask_rcnn", "semantic_fpn"))]


def recipe_of(path):
    return Recipe.from_dict(yaml.safe_load(path.read_text()))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_says_what_it_takes(path):
    header = path.read_text().partition("seed:")[0]
    assert all(line.startswith("#") for line in header.splitlines())
    for word in ("command ", "source ", "cost ", f"--config {path.stem}"):
        assert word in header, f"{path.name} does not say its {word}"
    assert "result " in header or "expected " in header


@pytest.mark.parametrize("path", DENSE, ids=lambda path: path.stem)
def test_a_recipe_of_a_dense_task_fits_its_model(path):
    recipe = recipe_of(path)
    with torch.device("meta"):
        model = create_model(recipe.model.name, **{"num_classes": 7, **recipe.model.kwargs}).eval()
        answer = model(torch.zeros(1, *recipe.data.shape))
    if recipe.data.task == "segmentation":
        assert answer.shape == (1, 7, *recipe.data.shape[1:])
    else:
        regions = model.rpn.post_nms_top_n()
        assert [x.shape for x in answer[-3:]] == [
            (regions, 7),
            (regions, 28),
            (model.roi_heads.detections_per_img, 7, 28, 28),
        ]


def test_published_settings_of_detection():
    recipe = recipe_of(next(path for path in DENSE if path.stem == "mask_rcnn_coco"))
    training, model = recipe.training, recipe.model.kwargs
    assert (training.epochs, training.schedule, training.decay_at, training.decay_rate) == (12, "step", [8, 11], 0.1)
    assert (training.optimizer, training.lr, training.weight_decay, training.warmup_steps) == (
        "adamw",
        2e-4,
        0.05,
        1000,
    )
    assert (min(model["min_size"]), model["min_size"][-1], model["max_size"]) == (480, 800, 1333)
    assert (recipe.data.batch_size, recipe.data.crop, recipe.data.empty, model["time_steps"]) == (8, 0.5, False, 1)


def test_published_settings_of_segmentation():
    recipe = recipe_of(next(path for path in DENSE if path.stem == "semantic_fpn_ade20k"))
    training, data = recipe.training, recipe.data
    assert (training.optimizer, training.lr, training.weight_decay) == ("adamw", 1e-3, 0.005)
    assert (training.head_lr, training.neck_lr) == (2.0, 1.0)
    assert (training.schedule, training.poly_power, training.min_lr) == ("poly", 1.0, 0.0)
    assert (training.warmup_steps, training.warmup_lr) == (1500, 1e-6)
    assert abs(training.epochs * (20210 // data.batch_size) / 160_000 - 1) < 0.003
    assert (data.img_size, data.size, data.ratio, data.cat_max_ratio, data.reduce_zero) == (
        512,
        (2048, 512),
        (0.5, 2.0),
        0.75,
        True,
    )
    assert recipe.trainer.sync_batchnorm


@pytest.mark.parametrize("path", [path for path in RECIPES if path not in DENSE], ids=lambda path: path.stem)
def test_a_recipe_fits_its_model(path):
    recipe = recipe_of(path)
    *steps, channels, height, width = recipe.data.shape
    with torch.device("meta"):
        model = create_model(recipe.model.name, **{"in_chans": channels, **recipe.model.kwargs}).eval()
        assert model(torch.zeros(*steps, 1, channels, height, width)).shape == (1, model.num_classes)
    sample = np.zeros(recipe.data.shape, np.int32) if steps else Image.new("RGB", (300, 240))
    assert recipe.data.transform(training=True)(sample).shape == recipe.data.shape
    assert recipe.training.teacher or not recipe.model.kwargs.get(
        "distillation", False
    )  # a second head needs a teacher


# epochs + cool-down, warm-up, highest and lowest learning rate, batch, weight decay, erasing, mixup, cutmix, T
PUBLISHED = {
    "spikingformer_cifar10": (400, 10, 20, 5e-4, 1e-5, 64, 0.06, 0.25, 0.5, 0.0, 4),
    "spikingformer_cifar100": (400, 10, 20, 5e-4, 1e-5, 64, 0.06, 0.25, 0.5, 0.0, 4),
    "spikingformer_imagenet": (300, 10, 20, 5e-4, 1e-5, 288, 0.05, 0.25, 0.8, 1.0, 4),
    "spikingformer_cifar10dvs": (96, 10, 10, 1e-3, 1e-5, 16, 0.06, None, 0.5, 0.0, 16),
    "spikingformer_dvs128": (192, 10, 10, 1e-3, 1e-5, 16, 0.06, None, 0.5, 0.0, 16),
    "meta_spikeformer_imagenet_t1": (200, 0, 10, 2.4e-3, 1e-6, 1024, 0.05, 0.25, 0.0, 0.0, 1),
    "meta_spikeformer_imagenet_t4": (20, 0, 2, 1.5e-5, 1e-6, 192, 0.05, 0.25, 0.0, 0.0, 4),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_settings(name):
    recipe = recipe_of(next(path for path in RECIPES if path.stem == name))
    data, training = recipe.data, recipe.training
    steps = data.time_steps if hasattr(data, "time_steps") else recipe.model.kwargs["time_steps"]
    assert (
        *(training.epochs, training.cooldown_epochs, training.warmup_epochs),
        *(pytest.approx(peak_lr(training, data.batch_size)), training.min_lr, data.batch_size, training.weight_decay),
        *(getattr(data, "erase", None), training.mixup, training.cutmix, steps),
    ) == PUBLISHED[name]
    assert training.label_smoothing == 0.1 and training.precision == "16-mixed"


SSNN = {"ssnn_cifar10dvs": 1e-3, "ssnn_dvs128": 1e-3, "ssnn_ncaltech101": 1e-3}


@pytest.mark.parametrize("name", SSNN)
def test_published_settings_of_ssnn(name):
    """SGD with momentum, 0.1 and a tenth of it every 30 of 100 epochs, batch 64, 48 x 48 pixels, as many frames as the first stage has steps."""
    recipe = recipe_of(next(path for path in RECIPES if path.stem == name))
    data, training = recipe.data, recipe.training
    assert (training.optimizer, training.epochs, peak_lr(training, data.batch_size), data.batch_size) == (
        "momentum",
        100,
        0.1,
        64,
    )
    assert (training.schedule, training.decay_epochs, training.decay_rate) == ("step", 30, 0.1)
    assert (training.weight_decay, data.img_size, data.resize) == (SSNN[name], 48, "bilinear")
    assert recipe.model.kwargs["schedule"] == [8, 6, 4, 2] and data.time_steps == 8
    assert training.early_classifiers and training.early_weight == 0.5
    assert not (training.label_smoothing or training.mixup or training.cutmix or data.hflip or data.roll or data.rotate)


def small(data):
    """The data of a recipe for small images; what is drawn at random stays."""
    kind = type(data).__name__
    if kind == "ImageData":
        return replace(data, img_size=8, crop_padding=min(data.crop_padding, 2))
    if kind == "EventData":
        return replace(data, img_size=16, sensor=None)
    return replace(data, size=(48, 32), img_size=24) if kind == "MaskData" else data


def augmentations(kinds):
    """Recipes of these kinds of data whose augmentation is unlike that of any before."""
    seen = {}
    for path in RECIPES:
        data = recipe_of(path).data
        if type(data).__name__ in kinds:
            given = {key: value for key, value in vars(small(data)).items() if key not in IRRELEVANT}
            seen.setdefault(repr(given), path)
    return list(seen.values())


IRRELEVANT = (
    "name",
    "root",
    "batch_size",
    "workers",
    "time_steps",
    "cache",
    "train",
    "val",
    "folds",
    "fold",
    "limit",
    "repeats",
    "classes",
)


@pytest.mark.parametrize("path", augmentations(["ImageData"]), ids=lambda path: path.stem)
def test_the_augmentation_of_a_recipe_gets_through_2000_images(path):
    """Some operation fails at one of its random strengths only."""
    data = small(recipe_of(path).data)
    augment, random = data.transform(training=True), np.random.default_rng(0)
    with drawing_from(1):
        for pixels in random.integers(0, 256, (2000, 10, 10, 3), np.uint8):
            image = augment(Image.fromarray(pixels))
            assert image.shape == data.shape and image.isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize("path", augmentations(["EventData", "CocoData", "MaskData"]), ids=lambda path: path.stem)
def test_the_augmentation_of_a_recipe_gets_through_2000_samples(path):
    data = small(recipe_of(path).data)
    augment, random = data.transform(training=True), np.random.default_rng(0)
    boxes = torch.tensor([[2.0, 3, 20, 25], [0, 0, 32, 24]])
    masks = torch.zeros(2, 24, 32, dtype=torch.uint8)
    masks[0, 3:25, 2:20] = masks[1] = 1
    numbers = {"labels": torch.tensor([1, 2]), "area": torch.ones(2), "iscrowd": torch.zeros(2, dtype=torch.int64)}
    with drawing_from(1):
        for _ in range(2000):
            if data.task == "classification":
                sample = augment(random.integers(0, 9, (2, 2, 16, 16), np.int32))
                assert sample.shape == (2, 2, 16, 16) and sample.isfinite().all()
                continue
            image = Image.fromarray(random.integers(0, 256, (24, 32, 3), np.uint8))
            if data.task == "segmentation":
                image, target = augment((image, torch.from_numpy(random.integers(0, 5, (24, 32), np.uint8))))
                assert image.shape == (3, 24, 24) and target.shape == (24, 24)
            else:
                target = {"boxes": boxes, **numbers, "image_id": 1, **({"masks": masks} if data.masks else {})}
                image, target = augment((image, target))
                assert target["boxes"].isfinite().all() and (target["boxes"][:, 2:] > target["boxes"][:, :2]).all()
            assert image.isfinite().all()
