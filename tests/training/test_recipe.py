"""Recipes: what they accept, and when two promise the same result."""

import pytest
import yaml

from spikeformers.training.recipe import Recipe, Training, differences


def test_a_recipe_survives_yaml(recipe):
    assert Recipe.from_dict(yaml.safe_load(yaml.safe_dump(recipe.as_dict()))) == recipe


def test_differences_name_what_changes_the_result(config):
    old = Recipe.from_dict(config)
    config["training"]["lr"], config["model"]["kwargs"]["time_steps"] = 0.02, 3
    assert differences(old, Recipe.from_dict(config)) == {"training.lr": (0.01, 0.02), "model.kwargs.time_steps": (2, 3)}


def test_where_it_runs_makes_no_difference(config):
    old = Recipe.from_dict(config)
    config["trainer"]["devices"], config["data"]["workers"], config["data"]["root"] = 2, 4, "elsewhere"
    assert differences(old, Recipe.from_dict(config)) == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "training.epochs is 0; give at least 1"),
        ({"epochs": 5, "warmup_epochs": 5}, r"training.warmup_epochs is 5; give 0 or more, below training.epochs \(5\)"),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        Training(**options)
