"""Options: every one has a type and, if it is a number, a range; what does not fit is named before anything else happens."""

from dataclasses import MISSING, fields
from typing import Any, Literal, TypedDict, get_args, get_type_hints

import pytest

from spikeformers._options import fitting, misfit
from spikeformers._ranges import Range
from spikeformers.data import CocoData, EventData, ImageData, MaskData
from spikeformers.evaluation.conversion import Conversion
from spikeformers.training.recipe import Machine, Model, Recipe, Training

KINDS = [Training, Machine, Model, ImageData, EventData, CocoData, MaskData, Conversion]
NEEDED = {Model: {"name": "any"}, Conversion: {"model": "any"}}
FREE = {"ImageData.channels"}  # a choice of two


def options(kind):
    hints = get_type_hints(kind)
    return [(each.name, hints[each.name]) for each in fields(kind)]


def numeric(hint):
    return hint in (int, float) or any(map(numeric, get_args(hint)))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_number_has_a_range_and_every_range_a_number(kind):
    numbers = {name for name, hint in options(kind) if numeric(hint) and f"{kind.__name__}.{name}" not in FREE}
    assert set(getattr(kind, "ranges", {})) == numbers


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_what_means_nothing_is_refused_by_name(kind):
    """For each option a value of every other type, numbers that are none, and numbers out of any range."""
    taken = []
    for name, hint in options(kind):
        default = next(each.default for each in fields(kind) if each.name == name)
        wrong = [float("nan"), float("inf"), -float("inf"), 1e400, 10**400, object(), {1: 2}, {1, 2}, b"x", [[[]]]]
        if numeric(hint):
            wrong += [
                -1e30,
                *(["1e-3x"] if str not in get_args(hint) else []),
                True if bool not in get_args(hint) else object(),
                {},
                [{}],
            ]
        if hint is str:
            wrong += [1, True, ["x"], None]
        if hint is bool:
            wrong += ["yes", 1, 0, None, []]
        for value in wrong:
            try:
                kind(**{**NEEDED.get(kind, {}), name: value})
            except ValueError as error:
                assert name in str(error), (name, value, error)
            else:
                taken.append((name, value))
        assert default is MISSING or not misfit(default, hint), name
    assert taken == []


@pytest.mark.parametrize(
    ("section", "option", "value", "message"),
    [
        ("training", "min_lr", -1, "training.min_lr is -1; give at least 0"),
        ("training", "warmup_lr", -1.0, "training.warmup_lr"),
        ("training", "weight_decay", -0.5, "training.weight_decay"),
        ("training", "clip_grad", -1.0, "training.clip_grad"),
        ("training", "layer_decay", -1.0, "training.layer_decay is -1.0; give a number above 0 and at most 1"),
        ("training", "ema", 1.0, "training.ema is 1.0; give below 1"),
        ("training", "mixup", -1.0, "training.mixup is -1.0; give 0 to 1000"),
        ("training", "cutmix", -1.0, "training.cutmix"),
        ("training", "lr", "1e-3", r"training.lr is '1e-3'; give a finite number \(in YAML, 1e-3 is a word"),
        ("training", "epochs", True, "training.epochs is True; give a whole number"),
        ("training", "epochs", 3.5, "training.epochs is 3.5"),
        (
            "training",
            "optimizer_kwargs",
            {"betas": [0.9, float("nan")]},
            r"training.optimizer_kwargs.betas\[1\] is nan",
        ),
        ("training", "optimizer_kwargs", [1], r"training.optimizer_kwargs is \[1\]; give options"),
        ("training", "decay_at", 3, "training.decay_at is 3; give a list of numbers"),
        ("trainer", "threads", -1, "trainer.threads is -1; give at least 0|trainer.threads"),
        ("trainer", "devices", 0, "trainer.devices is 0"),
        ("trainer", "save_minutes", float("nan"), "trainer.save_minutes"),
        ("model", "kwargs", {"dims": {1: 2}}, "model.kwargs.dims has the key 1"),
        ("model", "name", 5, "model.name is 5; give a word"),
        ("data", "erase", 5.0, "data.erase is 5.0; give 0 to 1"),
        ("data", "hflip", -5.0, "data.hflip"),
        ("data", "scale", [2, 3], r"data.scale is \[2, 3\]"),
        ("data", "crop_padding", 100_000, "data.crop_padding"),
        ("data", "std", [0.0, 1.0, 1.0], "data.std"),
        ("data", "workers", -1, "data.workers"),
        ("data", "name", ["digits"], r"data.name is \['digits'\]; give digits, folder"),
        ("data", "epochs", 3, "unknown key data.epochs; data has"),
        ("run", "lr", 3, "unknown key 'run'; a recipe has model"),
        ("training", None, 5, "training is 5 in the recipe; a recipe holds the sections"),
        ("seed", None, "x", "seed is 'x'; give a whole number"),
    ],
)
def test_values_out_of_range(section, option, value, message):
    content = {"model": {"name": "any"}, "data": {"name": "digits"}}
    if option is None:
        content[section] = value
    else:
        content.setdefault(section, {})[option] = value
    with pytest.raises(ValueError, match=message):
        Recipe.from_dict(content)


@pytest.mark.parametrize(
    "content", [None, [1], "text", {}, {"model": {}}, {1: 2}, {"model": {"name": "x"}, 5: 6}], ids=str
)
def test_what_is_no_recipe(content):
    with pytest.raises(ValueError, match="recipe"):
        Recipe.from_dict(content)


def test_where_a_value_does_not_fit():
    class Row(TypedDict):
        name: str
        sizes: list[int]

    rows = [{"name": "a", "sizes": [1, 2]}, {"name": "b", "sizes": [1, "2"]}]
    assert misfit(rows[:1], list[Row]) == ""
    assert (
        misfit(rows, list[Row])
        == "[1].sizes[1] is '2'; give a whole number (in YAML, 2 is a word: write it with a dot, such as 1.0e-3, and without quotes)"
    )
    assert misfit({"name": "a"}, Row) == " has no sizes"
    assert misfit(True, Literal[1, 2]) and not misfit(2, Literal[1, 2])
    assert misfit(1, float | None) == "" and misfit(None, float | None) == "" and misfit(True, float | None)
    assert (
        misfit((1, 2), tuple[int, int]) == ""
        and misfit((1, 2, 3), tuple[int, int]) == " is (1, 2, 3); give a list of 2 whole numbers"
    )
    assert misfit({"a": [1, {"b": "c"}]}, Any) == "" and misfit({"a": [1, {"b": {2}}]}, Any).startswith(
        ".a[1].b is {2}"
    )


def test_a_range_says_what_to_give():
    assert (
        Range(least=1, most=10**6).instead_of(0) == "at least 1"
        and Range(least=1, most=10**6).instead_of(10**7) == "at most 1,000,000"
    )
    assert Range(above=0).instead_of(0) == "a number above 0" and Range(least=0, most=1).instead_of(2) == "0 to 1"


def test_constructors_reasons_become_one_sentence():
    with (
        pytest.raises(ValueError, match="the options do not fit: TypeError: object of type") as caught,
        fitting("the options do not fit"),
    ):
        len(5)
    assert isinstance(caught.value.__cause__, TypeError)
    with pytest.raises(KeyboardInterrupt), fitting("anything"):
        raise KeyboardInterrupt
