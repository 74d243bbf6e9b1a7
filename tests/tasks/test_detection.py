"""Detectors: training, answers, profiles, files, and what does not fit."""

import copy
import inspect
import json

import pytest
import torch
from torch.testing import assert_close

import spikeformers
from spikeformers.measure import emissions
from spikeformers.tasks import faster_rcnn, mask_rcnn, semantic_fpn


def fired(module, *inputs):
    with torch.no_grad(), emissions(module) as tally:
        module(*inputs)
    return tally().firing_rates


@pytest.mark.parametrize(("size", "millions"), [("15m", 34.9), ("55m", 75.0)])
def test_parameters_are_as_many_as_published(size, millions):
    with torch.device("meta"):
        model = spikeformers.create_model("mask_rcnn", backbone=f"meta_spikeformer_{size}", num_classes=81)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 1) == millions


@pytest.mark.parametrize("time_steps", [1, 4])
def test_training_reaches_every_parameter_with_images_of_different_sizes_and_one_without_objects(
    network, targets, time_steps
):
    model = network("mask_rcnn", time_steps=time_steps).train()
    losses = model(*targets)
    assert set(losses) == {"loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg"}
    sum(losses.values()).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not without
    assert all(p.grad.any() for name, p in model.named_parameters() if name.endswith("layer.weight"))


def test_normalised_heads_learn_without_objects_and_merge_away(network, targets):
    images, wanted = targets
    model = network("mask_rcnn", norm=True)
    norms = [
        name
        for name, m in model.named_modules()
        if isinstance(m, torch.nn.modules.batchnorm._BatchNorm) and "body" not in name
    ]
    assert len(norms) == 8 + 2 + 4 + 1
    model.train()(images[1:], wanted[1:])["loss_classifier"].backward()
    model.double().train()([image.double() for image in images], wanted)
    merged = spikeformers.merge(model.eval(), "neuromorphic")
    assert not [m for m in merged.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    with torch.no_grad():
        for a, b in zip(model([images[0].double()]), merged([images[0].double()]), strict=True):
            assert len(a["boxes"])
            for key in a:
                assert_close(a[key], b[key], rtol=1e-6, atol=1e-6, msg=key)
    found = spikeformers.audit(merged, images[0].double()[None])
    assert {finding.operation for finding in found.offending} == {"torchvision::roi_align"}


@pytest.mark.parametrize("time_steps", [1, 4])
def test_an_image_without_objects_alone_can_be_learned(network, targets, time_steps):
    images, wanted = targets
    losses = network("mask_rcnn", time_steps=time_steps).train()(images[1:], wanted[1:])
    total = sum(losses.values())
    total.backward()
    assert total.isfinite() and losses["loss_box_reg"] == 0 and losses["loss_mask"] == 0


@pytest.mark.parametrize("time_steps", [1, 4])
@pytest.mark.parametrize("batch", [1, 2])
def test_detections_lie_in_the_images_given(network, targets, time_steps, batch):
    images = targets[0][:batch]
    with torch.no_grad():
        found = network("mask_rcnn", time_steps=time_steps)(images)
    assert len(found) == batch
    for image, answer in zip(images, found, strict=True):
        height, width = image.shape[1:]
        count = len(answer["boxes"])
        assert 0 < count <= 10
        assert answer["masks"].shape == (count, 1, height, width)
        assert answer["boxes"].min() >= 0 and (answer["boxes"] <= torch.tensor([width, height, width, height])).all()
        assert set(answer["labels"].tolist()) <= {1, 2, 3}


def test_nothing_found_is_an_answer(network, targets):
    model = network("mask_rcnn", box_score_thresh=1.1)
    assert [len(answer["boxes"]) for answer in model(targets[0])] == [0, 0]


def test_an_image_is_answered_alike_alone_and_among_others(network):
    model = network("mask_rcnn").double()
    images = [torch.rand(3, *size, dtype=torch.float64) for size in ((64, 64), (64, 128), (64, 64), (90, 64))]
    with torch.no_grad():
        together = model(images)
        for image, answer in zip(images, together, strict=True):
            (alone,) = model([image])
            assert len(alone["boxes"])
            for key in alone:
                assert_close(answer[key], alone[key], msg=key)


@pytest.mark.parametrize("heads", ["spiking", "float"])
def test_half_precision_is_kept_from_boxes(network, targets, heads):
    """Above 256, numbers of bfloat16 are two pixels apart."""
    model = network("mask_rcnn", heads=heads, min_size=300, max_size=450)
    seen = {}
    model.rpn.anchor_generator.register_forward_hook(lambda module, args, output: seen.update(anchors=output[0]))
    model.roi_heads.box_roi_pool.register_forward_hook(lambda module, args, output: seen.update(regions=args[1][0]))
    model(targets[0][:1])
    anchors = seen["anchors"]
    with torch.autocast("cpu", torch.bfloat16):
        (found,) = model(targets[0][:1])
        assert_close(seen["anchors"], anchors, rtol=0, atol=0)
        losses = model.train()(*targets)
    assert {seen["regions"].dtype, found["boxes"].dtype, found["scores"].dtype} == {torch.float32}
    assert all(losses[name].dtype == torch.float32 for name in ("loss_box_reg", "loss_rpn_box_reg", "loss_classifier"))


def test_sequences_of_events_as_a_tensor_or_a_list_of_clips():
    torch.manual_seed(0)
    model = spikeformers.create_model(
        "faster_rcnn", backbone="spiking_vgg9", num_classes=3, width=8, time_steps=3, min_size=64, box_score_thresh=0.0
    )
    x = torch.rand(4, 2, 2, 64, 64).round()
    for _ in range(20):
        model.train()([x[:, 0]], [{"boxes": torch.tensor([[4.0, 4.0, 40.0, 50.0]]), "labels": torch.tensor([1])}])
    seen = []
    model.eval().body.stages[0].register_forward_hook(lambda module, args, output: seen.append(output.shape[:2]))
    together, clips = model(x), model([x[:, 0], x[:, 1]])
    assert seen == [(4, 2), (4, 2)]
    for a, b in zip(together, clips, strict=True):
        assert_close(a["boxes"], b["boxes"])
    model([x[:1, 0]])
    assert seen[-1] == (1, 1)  # a clip of one frame is not a picture to be shown again and again
    dense = {layer.name: layer.dense for layer in spikeformers.profile(model, x[:, :1], merged=False).layers}
    want = {layer.name: layer.dense for layer in spikeformers.estimate(model, (4, 2, 64, 64), 0.2).layers}
    assert dense["backbone.neck.lateral.0.layer"] == want["backbone.neck.lateral.0.layer"]


def test_targets_that_do_not_fit(network, targets):
    model, (images, wanted) = network("mask_rcnn").train(), targets
    for broken in (None, wanted[:1]):
        with pytest.raises(ValueError, match="each of the 2 images needs a target"):
            model(images, broken)
    changes = {"labels": torch.tensor([1]), "masks": wanted[0]["masks"][:, :32], "boxes": torch.zeros(2, 5)}
    for name, value in changes.items():
        with pytest.raises(ValueError, match=rf"must hold .*'{name}'"):
            model(images, [{**wanted[0], name: value}, wanted[1]])
    with pytest.raises(ValueError, match="must hold .* not {'boxes'"):
        model(images, [{"boxes": wanted[0]["boxes"]}, wanted[1]])


def test_colour_images_in_a_backbone_of_events():
    model = spikeformers.create_model(
        "faster_rcnn",
        backbone="sew_resnet18",
        backbone_kwargs={"in_chans": 3},
        num_classes=3,
        width=8,
        time_steps=1,
        min_size=64,
    )
    assert len(model.eval()([torch.rand(3, 64, 64)])) == 1


def test_profiles_take_images_one_by_one(network, targets):
    model = network("mask_rcnn")
    assert spikeformers.profile(model, targets[0], merged=False).samples == 2
    assert spikeformers.audit(model, targets[0]).samples == 2


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        ([torch.rand(1, 64, 64)], [1], r"expected images \[3, H, W\]"),
        ([torch.rand(4, 64, 64)], [1], r"not \[\(4, 64, 64\)\]"),
        ([torch.rand(2, 3, 64, 64), torch.rand(3, 3, 64, 64)], [1], "same number of time steps"),
        ([torch.zeros(3, 64, 64, dtype=torch.uint8)], [1], "divide by 255"),
        ([torch.rand(3, 64, 64)], [0], "0 is the background"),
        ([torch.rand(3, 64, 64)], [4], "labels must be 1 to 3"),
        ([], [], "at least one"),
    ],
)
def test_inputs_that_do_not_fit(network, images, labels, message):
    target = {
        "boxes": torch.tensor([[1.0, 1.0, 9.0, 9.0]]),
        "labels": torch.tensor(labels),
        "masks": torch.ones(1, 64, 64),
    }
    with pytest.raises(ValueError, match=message):
        network("mask_rcnn").train()(images, [target] * len(images))


def test_float_heads_are_torchvisions_behind_the_mean_over_time(network, targets):
    model = network("mask_rcnn", heads="float")
    assert not [name for name in fired(model, targets[0]) if ".body." not in name]
    losses = model.train()(*targets)
    assert sum(losses.values()).isfinite()
    x = torch.randn(1, 3, 64, 64)
    want = [
        found.mean(0) for found in model.eval().body.forward_intermediates(x, [1, 2, 3, 4], intermediates_only=True)
    ]
    got = model.backbone.neck({str(i): found for i, found in enumerate(want)})
    assert_close(model.backbone(x)["0"], got["0"])


def test_readout_before_the_neck_gives_the_heads_one_step(network, targets):
    model = network("mask_rcnn", time_steps=3, readout="neck")
    assert model.backbone(torch.randn(1, 3, 64, 64))["0"].shape == (1, 1, 16, 16, 16)
    assert len(model(targets[0])) == 2


def test_time_steps_that_shrink_from_stage_to_stage(targets):
    options = {"dims": (8, 16, 24, 32), "depths": (1, 1, 1, 1, 1), "schedule": [4, 4, 3, 2, 2]}
    model = spikeformers.create_model(
        "faster_rcnn", backbone="meta_spikeformer_15m", backbone_kwargs=options, width=16, min_size=64
    )
    maps = model.backbone(torch.randn(1, 3, 64, 64))
    assert {len(found) for found in maps.values()} == {2} and model.schedule == [4, 4, 3, 2, 2]
    assert sum(model.train()(*targets).values()).isfinite()


@pytest.mark.parametrize(
    "backbone",
    ["meta_spikeformer_cifar", "spikingformer_cifar_2_256", "spiking_vgg9", "spiking_resnet18", "sew_resnet18"],
)
def test_any_backbone_of_images_or_events(backbone):
    torch.manual_seed(0)
    model = spikeformers.create_model(
        "faster_rcnn", backbone=backbone, num_classes=3, width=8, time_steps=2, min_size=64
    )
    sample = torch.rand(2, 2, 64, 64).round() if model.in_chans == 2 else torch.rand(3, 64, 64)
    target = {"boxes": torch.tensor([[4.0, 4.0, 40.0, 50.0]]), "labels": torch.tensor([1])}
    losses = model.train()([sample], [target])
    sum(losses.values()).backward()
    assert next(model.body.parameters()).grad.any()
    assert model.eval()([sample])[0]["boxes"].shape[1] == 4


def test_a_saved_detector_is_the_same_again(tmp_path, targets):
    torch.manual_seed(0)
    options = {"dims": [8, 16, 24, 32], "depths": [1, 1, 1, 1, 1]}
    model = spikeformers.create_model(
        "mask_rcnn",
        backbone="meta_spikeformer_15m",
        num_classes=4,
        backbone_kwargs=options,
        width=16,
        min_size=64,
        box_score_thresh=0.0,
    )
    model.train()(*targets)
    model.eval().time_steps = 3
    spikeformers.save_model(model, tmp_path / "detector.safetensors")
    again = spikeformers.create_model(checkpoint=tmp_path / "detector.safetensors").eval()
    assert again.time_steps == 3 and again.config == json.loads(json.dumps(model.config))
    for a, b in zip(model(targets[0]), again(targets[0]), strict=True):
        for key in a:
            assert_close(a[key], b[key], rtol=0, atol=0)


@pytest.mark.parametrize("task", [mask_rcnn, faster_rcnn, semantic_fpn], ids=lambda task: task.__name__)
def test_a_configuration_holds_every_argument(task):
    model = task("meta_spikeformer_cifar", num_classes=3)
    assert set(model.config) - {"architecture"} == set(inspect.signature(task).parameters) - {"options"}


def test_the_backbone_given_stays_as_it_is(network):
    body = spikeformers.create_model("meta_spikeformer_15m", dims=(8, 16, 24, 32), distillation=True)
    before = copy.deepcopy(body.state_dict())
    model = spikeformers.create_model("faster_rcnn", backbone=body, width=16)
    assert body.num_classes == 1000 and list(body.state_dict()) == list(before)
    assert not any(name.startswith(("backbone.body.head.", "backbone.body.head_kd.")) for name in model.state_dict())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "needs a backbone"),
        ({"backbone": "meta_spikeformer_16m"}, "did you mean"),
        ({"backbone": 3}, "name of list_models"),
        ({"backbone": "meta_spikeformer_cifar", "heads": "analog"}, "'spiking' or 'float'"),
        ({"backbone": "meta_spikeformer_cifar", "heads": "float", "readout": "logits"}, "readout='neck'"),
        ({"backbone": "meta_spikeformer_cifar", "stages": [7]}, "0 to 4"),
        ({"backbone": "meta_spikeformer_cifar", "stages": 3}, "stages must be a list of whole numbers or None, not 3"),
        ({"backbone": "meta_spikeformer_cifar", "width": "x"}, "width must be a whole number"),
        ({"backbone": "meta_spikeformer_cifar", "min_size": 0}, "min_size must be"),
        ({"backbone": "meta_spikeformer_cifar", "anchor_sizes": ()}, "anchor_sizes must be"),
        ({"backbone": "meta_spikeformer_cifar", "num_classes": 1}, "counts the background"),
        ({"backbone": "meta_spikeformer_cifar", "min_sise": 3}, "no option min_sise; did you mean min_size"),
        ({"backbone": "meta_spikeformer_cifar", "wdth": 3}, "no option wdth; did you mean width"),
    ],
)
def test_errors_say_what_to_do(options, message):
    with pytest.raises(ValueError, match=message):
        spikeformers.create_model("mask_rcnn", **options)


def test_merged_detectors_answer_the_same_and_multiply_in_roi_align_only(network):
    model = network("mask_rcnn").double()
    images = torch.rand(2, 3, 64, 96, dtype=torch.float64)
    merged = spikeformers.merge(model, "neuromorphic")
    with torch.no_grad():
        for a, b in zip(model(images), merged(images), strict=True):
            for key in a:
                assert_close(a[key], b[key], rtol=1e-6, atol=1e-6, msg=key)
    with pytest.raises(ValueError, match="no configuration"):
        spikeformers.save_model(merged, "merged.safetensors")
    found = spikeformers.audit(merged, images)
    assert {finding.operation for finding in found.offending} == {"torchvision::roi_align"}
    fed = [finding for finding in found.passing if finding.module == "roi_heads.box_predictor.cls_score"]
    assert [finding.operands[0] for finding in fed] == ["binary"]
    assert "roi_heads.box_predictor.cls_score" in {
        finding.module for finding in spikeformers.audit(model, images).offending
    }


def test_profiles_and_estimates_cover_the_heads(network):
    model = network("mask_rcnn")
    measured = spikeformers.profile(model, [torch.rand(1, 3, 64, 96), torch.rand(1, 3, 96, 64)], merged=False)
    estimated = spikeformers.estimate(model, (3, 64, 96), 0.2)
    names = {
        f"roi_heads.{name}"
        for name in (
            "box_head.fc6.layer",
            "box_head.fc7.layer",
            "mask_head.convs.3.layer",
            "mask_predictor.mask_logits",
        )
    }
    names |= {
        "backbone.neck.lateral.3.layer",
        "backbone.neck.output.0.layer",
        "rpn.head.conv.layer",
        "rpn.head.cls_logits",
    }
    for profile in (measured, estimated):
        assert names <= {layer.name for layer in profile.layers}
    # 50 regions of 16 x 7 x 7 at two steps
    layer = next(layer for layer in estimated.layers if layer.name == "roi_heads.box_head.fc6.layer")
    assert layer.dense == 2 * 50 * 16 * 49 * 1024
    assert measured.energy > 0
