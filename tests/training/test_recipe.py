"""Recipes: what they accept, and when two promise the same result."""

import pytest
import yaml

from spikeformers.training.recipe import Recipe, Training, differences


def test_a_recipe_survives_yaml(recipe):
    assert Recipe.from_dict(yaml.safe_load(yaml.safe_dump(recipe.as_dict()))) == recipe


def test_differences_name_what_changes_the_result(config):
    old = Recipe.from_dict(config)
    config["training"]["lr"], config["model"]["kwargs"]["time_steps"] = 0.02, 3
    assert differences(old, Recipe.from_dict(config)) == {
        "training.lr": (0.01, 0.02),
        "model.kwargs.time_steps": (2, 3),
    }


def test_where_it_runs_makes_no_difference(config):
    old = Recipe.from_dict(config)
    config["trainer"]["devices"], config["data"]["workers"], config["data"]["root"] = 2, 4, "elsewhere"
    assert differences(old, Recipe.from_dict(config)) == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "training.epochs is 0; give at least 1"),
        ({"warmup_epochs": 1, "warmup_steps": 5}, "two units; give one of them"),
        ({"decay_at": [2.0]}, "training.decay_at is for training.schedule step, not cosine"),
        (
            {"epochs": 5, "schedule": "step", "decay_at": [3, 5]},
            r"decay_at is \[3, 5\]; give epochs above 0 and below training.epochs \(5\)",
        ),
        (
            {"epochs": 5, "freeze_norms": 5},
            r"freeze_norms is 5; give epochs from 0, below training.epochs \(5\), or null",
        ),
        ({"head_lr": 0.0}, "training.head_lr is 0.0; give a number above 0"),
        ({"schedule": "linear"}, "training.schedule is 'linear'; give cosine, poly or step"),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        Training(**options)


@pytest.mark.parametrize(
    ("name", "options", "wrong"),
    [
        ("coco", {"mixup": 0.2}, "training.mixup is 0.2, which says nothing about detection"),
        ("coco", {"label_smoothing": 0.1}, "training.label_smoothing is 0.1"),
        ("masks", {"cutmix": 1.0}, "training.cutmix is 1.0, which says nothing about segmentation"),
        ("masks", {"teacher": "resnet18"}, "training.teacher is 'resnet18'"),
        ("masks", {"early_classifiers": "shared"}, "training.early_classifiers is 'shared'"),
        ("coco", {"loss": "tet"}, "training.loss is 'tet'"),
        ("coco", {"distillation": "soft"}, "training.distillation is 'soft'"),
        ("digits", {"head_lr": 2.0}, "training.head_lr is 2.0, which says nothing about classification"),
    ],
)
def test_options_of_another_task(name, options, wrong):
    with pytest.raises(ValueError, match=wrong):
        Recipe.from_dict({"model": {"name": "any"}, "data": {"name": name}, "training": options})


def test_recipes_of_dense_tasks_survive_yaml():
    for data in ({"name": "coco", "batch_size": 16}, {"name": "masks", "classes": ["road", "sky"], "batch_size": 4}):
        training = {
            "schedule": "step",
            "decay_at": [8, 11],
            "epochs": 12,
            "warmup_steps": 100,
            "head_lr": 2.0,
            "freeze_norms": 6,
        }
        recipe = Recipe.from_dict({"model": {"name": "any"}, "data": data, "training": training})
        assert Recipe.from_dict(yaml.safe_load(yaml.safe_dump(recipe.as_dict()))).as_dict() == recipe.as_dict()
    assert (
        Recipe.from_dict({"model": {"name": "any"}, "data": data, "training": {"label_smoothing": 0.1}}).data.task
        == "segmentation"
    )
