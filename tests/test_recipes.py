"""The recipes: each is complete, fits its model, and says what one wants to know before starting it."""

from pathlib import Path

import pytest
import torch
import yaml

from spikeformers.models import create_model
from spikeformers.training.classifier import peak_lr
from spikeformers.training.recipe import Recipe

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))


def recipe_of(path):
    return Recipe.from_dict(yaml.safe_load(path.read_text()))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_says_what_it_takes(path):
    header = path.read_text().partition("seed:")[0]
    assert all(line.startswith("#") for line in header.splitlines())
    for word in ("command ", "source ", "cost ", f"recipes/{path.name}"):
        assert word in header, f"{path.name} does not say its {word}"
    assert "result " in header or "expected " in header


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_fits_its_model(path):
    recipe = recipe_of(path)
    *steps, channels, height, width = recipe.data.shape
    with torch.device("meta"):
        model = create_model(recipe.model.name, **{"in_chans": channels, **recipe.model.kwargs}).eval()
        assert model(torch.zeros(*steps, 1, channels, height, width)).shape == (1, model.num_classes)
    assert recipe.data.transform(training=True)
    assert (recipe.model.kwargs.get("distillation", False)) == bool(recipe.training.teacher)


@pytest.mark.parametrize(
    ("name", "lr"),
    [("meta_spikeformer_imagenet_t1", 2.4e-3), ("meta_spikeformer_imagenet_t4", 1.5e-5), ("spikingformer_cifar10", 5e-4)],
)
def test_published_learning_rates(name, lr):
    recipe = recipe_of(next(path for path in RECIPES if path.stem == name))
    assert peak_lr(recipe.training, recipe.data.batch_size) == pytest.approx(lr)
