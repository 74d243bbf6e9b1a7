"""Arguments are checked where a model is made: every registered model and task, every argument."""

import inspect
import re
import typing

import numpy as np
import pytest
import timm
import torch

import spikeformers
from spikeformers import layers, neurons
from spikeformers._arguments import Count, Positive, Share, check_argument
from spikeformers.models import _registry

WRONG = {
    int: [2.0, True, "4", -(10**30), 10**10, [2], float("nan")],
    float: ["0.1", True, float("nan"), float("inf"), -0.5, [0.1]],
    bool: ["yes", 2, 1.0],
    str: [3, True, ["avg"]],
}


def kinds_of(kind):
    """(basic type, whether in a sequence, whether None is a value) of an annotation."""
    optional = type(None) in typing.get_args(kind)
    parts = [part for part in typing.get_args(kind) if part is not type(None)] if optional else [kind]
    kind = parts[0]
    if typing.get_origin(kind) is typing.Annotated:
        return typing.get_args(kind)[0], False, optional
    if typing.get_args(kind):
        return (
            kinds_of(typing.get_args(kind)[0])[0],
            typing.get_origin(kind) not in (typing.Union, type(int | str)),
            optional,
        )
    return kind, False, optional


def refused(make, name, value):
    with torch.device("meta"), pytest.raises(ValueError) as error:
        make(**{name: value})
    assert re.search(rf"\b{name}\b|sdsa|schedule", str(error.value)), str(error.value)


@pytest.mark.parametrize("name", spikeformers.list_models())
def test_every_argument_of_every_model_is_checked(name):
    model_class = typing.get_type_hints(_registry._MODELS[name])["return"]
    hints = typing.get_type_hints(inspect.unwrap(model_class.__init__), include_extras=True)
    for argument in inspect.signature(model_class).parameters:
        basic, many, optional = kinds_of(hints[argument])
        default = inspect.signature(model_class).parameters[argument].default
        for value in WRONG[basic]:
            if basic is float and value == -0.5 and argument == "tau":
                continue  # LIF says it in its own words, tested with it
            sequence = [value] * len(default) if many else value
            refused(lambda name=name, **given: spikeformers.create_model(name, **given), argument, sequence)
        if many:
            refused(lambda name=name, **given: timm.create_model(name, **given), argument, "1234")
        if not optional:
            refused(lambda name=name, **given: spikeformers.create_model(name, **given), argument, None)


@pytest.mark.parametrize("name", spikeformers.list_tasks())
def test_arguments_of_tasks_are_checked(name):
    def make(**given):
        return spikeformers.create_model(name, **{"backbone": "meta_spikeformer_cifar", **given})

    for argument, kind in typing.get_type_hints(inspect.unwrap(_registry._TASKS[name])).items():
        basic = kinds_of(kind)[0]
        if basic in WRONG and argument not in ("backbone", "return", "options", "backbone_kwargs"):
            for value in WRONG[basic]:
                if not (argument == "anchor_sizes" and value == [2]) and not (argument == "stages" and value == [2]):
                    refused(make, argument, value)
    refused(make, "backbone_kwargs", {"time_steps": 2.0, "backbone_kwargs": 1})


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("box_detections_per_img", "ten"),
        ("rpn_nms_thresh", True),
        ("image_std", [0.0, 1, 1]),
        ("min_size", 64.5),
        ("rpn_batch_size_per_image", -1),
    ],
    ids=str,
)
def test_options_of_torchvision_are_checked(option, value):
    refused(lambda **given: spikeformers.create_model("faster_rcnn", backbone="spiking_vgg9", **given), option, value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: layers.ConvBN(3.0, 4), "in_channels must be a whole number, not 3.0"),
        (lambda: layers.ConvBN(3, 0), "out_channels must be at least 1, not 0"),
        (lambda: layers.RepConv("8"), "channels must be a whole number, not '8'"),
        (lambda: layers.ChannelMixer(8, neurons.LIF, ratio=-1), "ratio must be positive, not -1"),
        (lambda: layers.DropPath(float("nan")), "rate must be a finite number"),
        (lambda: layers.TimestepShrink(4.0, 2), "time_steps must be a whole number, not 4.0"),
        (
            lambda: layers.SpikingSelfAttention(8, True, layers.RepConv, neurons.LIF),
            "num_heads must be a whole number, not True",
        ),
        (lambda: neurons.LIF("2"), "tau must be a number, not '2'"),
        (lambda: neurons.IF(alpha=0.0), "alpha must be positive, not 0.0"),
        (lambda: neurons.MLF(thresholds=0.5), "thresholds must be a list of numbers, not 0.5"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_layers_and_neurons_check_theirs(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


def test_what_is_right_is_taken_as_pythons_own():
    model = spikeformers.create_model(
        "spikingformer_cifar_2_256",
        embed_dim=np.int64(16),
        num_heads=2,
        tau=np.float32(2),
        pools=[0, 0, 1, np.bool_(True)],
    )
    assert {"embed_dim": 16, "tau": 2.0, "pools": [False, False, True, True]}.items() <= model.config.items()
    assert type(model.config["embed_dim"]) is int and type(model.config["tau"]) is float
    assert check_argument("x", 3, Count) == 3 and check_argument("x", (1, 2), list[int]) == (1, 2)
    assert check_argument("x", None, Positive | None) is None


def test_messages_are_short_whatever_is_given():
    for value in ("x" * 10**6, 10**5000, [[]] * 10**5):
        with pytest.raises(ValueError) as error:
            check_argument("rate", value, Share)
        assert len(str(error.value)) < 250


def test_unknown_options_are_named_by_timm_too():
    with pytest.raises(ValueError, match="spikingformer_cifar_2_256 has no option 'img_size'; it has embed_dim, depth"):
        timm.create_model("spikingformer_cifar_2_256", img_size=64)


# timm's documented way to the map


@torch.no_grad()
@pytest.mark.parametrize(
    "name", ["meta_spikeformer_cifar", "spikingformer_cifar_2_256", "spiking_vgg9", "spiking_resnet18", "sew_resnet18"]
)
def test_the_map_without_pooling(name):
    small = {
        "meta_spikeformer_cifar": {"dims": (16, 16, 16, 16)},
        "spikingformer_cifar_2_256": {"embed_dim": 16},
        "spiking_vgg9": {"width": 0.125},
    }.get(name, {"dims": (8, 8, 8, 8)})
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=0, global_pool="", **small).eval()
    x = torch.rand(2, model.in_chans, 48, 48)
    info = model.feature_info[-1]
    found = model(x)
    assert found.shape == (2, info["num_chs"], 48 // info["reduction"], 48 // info["reduction"])
    steps = model(x, per_step=True)
    torch.testing.assert_close(steps.mean(0), found)
    if isinstance(model.head_lif, torch.nn.Identity):  # then what the head would read is pooled from it
        model.reset_classifier(0, "avg")
        want = found.flatten(1) if name == "spiking_vgg9" else found.mean((2, 3))
        torch.testing.assert_close(model(x), want)
    model.reset_classifier(0, "")
    model.reset_classifier(3)
    assert model.global_pool == "avg" and model(x).shape == (2, 3)


@pytest.mark.parametrize("name", spikeformers.list_models())
def test_pooling_is_avg_or_none(name):
    with torch.device("meta"):
        assert timm.create_model(name, num_classes=0, global_pool="").global_pool == ""
        assert timm.create_model(name, global_pool="avg").num_classes > 0
        for given in ({"global_pool": ""}, {"global_pool": "max"}, {"num_classes": 0, "global_pool": "token"}):
            with pytest.raises(ValueError, match="global_pool"):
                timm.create_model(name, **given)
