"""Published detectors and segmentation networks: OpenMMLab's names, its order of classes, and errors that say what to do."""

import re

import pytest
import torch
from torch.testing import assert_close

import spikeformers
from spikeformers.models import import_checkpoint

BACKBONE = {"dims": (16, 16, 16, 16), "depths": (1, 1, 2, 1, 1), "num_heads": 2}
OPTIONS = {"backbone": "meta_spikeformer_15m", "backbone_kwargs": BACKBONE, "time_steps": 2, "width": 16}
CLASSES = 4  # of objects; detectors count the background too

NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def spread(names, keys):
    """Names of layers -> names of their parameters."""
    return {f"{theirs}.{key}": f"{ours}.{key}" for theirs, ours in names.items() for key in keys}


# published name -> ours, of everything, written out once more


def backbone_names():
    names = {}
    downsamples = {
        "downsample1_1.encode": "stem",
        "downsample1_2.encode": "stages.1.downsample.conv_bn",
        "downsample2.encode": "stages.2.downsample.conv_bn",
        "downsample3.encode": "stages.3.downsample.conv_bn",
        "downsample4.encode": "stages.4.downsample.conv_bn",
    }
    for theirs, ours in downsamples.items():
        names |= spread({f"{theirs}_conv": f"{ours}.conv"}, ("weight", "bias"))
        names |= spread({f"{theirs}_bn": f"{ours}.bn"}, NORM)
    blocks = {
        "ConvBlock1_1.0": "stages.0.blocks.0",
        "ConvBlock1_2.0": "stages.1.blocks.0",
        "ConvBlock2_1.0": "stages.2.blocks.0",
        "ConvBlock2_2.0": "stages.2.blocks.1",
    }
    for theirs, ours in blocks.items():
        convolutions = {
            f"{theirs}.Conv.pwconv1": f"{ours}.sep_conv.branch.expand.conv",
            f"{theirs}.Conv.dwconv": f"{ours}.sep_conv.branch.depthwise",
            f"{theirs}.Conv.pwconv2": f"{ours}.sep_conv.branch.project.conv",
            f"{theirs}.conv1": f"{ours}.channel_conv.branch.fc1.conv",
            f"{theirs}.conv2": f"{ours}.channel_conv.branch.fc2.conv",
        }
        norms = {
            f"{theirs}.Conv.bn1": f"{ours}.sep_conv.branch.expand.bn",
            f"{theirs}.Conv.bn2": f"{ours}.sep_conv.branch.project.bn",
            f"{theirs}.bn1": f"{ours}.channel_conv.branch.fc1.bn",
            f"{theirs}.bn2": f"{ours}.channel_conv.branch.fc2.bn",
        }
        names |= spread(convolutions, ("weight",)) | spread(norms, NORM)
    for theirs, ours in {"block3.0": "stages.3.blocks.0", "block4.0": "stages.4.blocks.0"}.items():
        for layer in ("q", "k", "v", "proj"):
            there, here = f"{theirs}.attn.{layer}_conv", f"{ours}.attention.branch.{layer}"
            convolutions = {
                f"{there}.0.body.0": f"{here}.expand",
                f"{there}.0.body.2.0": f"{here}.depthwise",
                f"{there}.0.body.2.1": f"{here}.project",
            }
            norms = {
                f"{there}.0.body.1.bn": f"{here}.expand_bn",
                f"{there}.0.body.2.2": f"{here}.project_bn",
                f"{there}.1": f"{here}.bn",
            }
            names |= spread(convolutions, ("weight",)) | spread(norms, NORM)
        for i in (1, 2):
            names |= spread({f"{theirs}.mlp.fc{i}_conv": f"{ours}.mlp.branch.fc{i}.conv"}, ("weight", "bias"))
            names |= spread({f"{theirs}.mlp.fc{i}_bn": f"{ours}.mlp.branch.fc{i}.bn"}, NORM)
    return {f"backbone.{theirs}": f"backbone.body.{ours}" for theirs, ours in names.items()}


NECK = {
    "neck.lateral_convs.0.conv": "backbone.neck.lateral.0.layer",
    "neck.lateral_convs.1.conv": "backbone.neck.lateral.1.layer",
    "neck.lateral_convs.2.conv": "backbone.neck.lateral.2.layer",
    "neck.lateral_convs.3.conv": "backbone.neck.lateral.3.layer",
    "neck.fpn_convs.0.conv": "backbone.neck.output.0.layer",
    "neck.fpn_convs.1.conv": "backbone.neck.output.1.layer",
    "neck.fpn_convs.2.conv": "backbone.neck.output.2.layer",
    "neck.fpn_convs.3.conv": "backbone.neck.output.3.layer",
}
BOXES = {
    "rpn_head.rpn_conv": "rpn.head.conv.layer",
    "rpn_head.rpn_cls": "rpn.head.cls_logits",
    "rpn_head.rpn_reg": "rpn.head.bbox_pred",
    "roi_head.bbox_head.shared_fcs.0": "roi_heads.box_head.fc6.layer",
    "roi_head.bbox_head.shared_fcs.1": "roi_heads.box_head.fc7.layer",
    "roi_head.bbox_head.fc_cls": "roi_heads.box_predictor.cls_score",
    "roi_head.bbox_head.fc_reg": "roi_heads.box_predictor.bbox_pred",
}
MASKS = {
    "roi_head.mask_head.convs.0.conv": "roi_heads.mask_head.convs.0.layer",
    "roi_head.mask_head.convs.1.conv": "roi_heads.mask_head.convs.1.layer",
    "roi_head.mask_head.convs.2.conv": "roi_heads.mask_head.convs.2.layer",
    "roi_head.mask_head.convs.3.conv": "roi_heads.mask_head.convs.3.layer",
    "roi_head.mask_head.upsample": "roi_heads.mask_predictor.upsample.layer",
    "roi_head.mask_head.conv_logits": "roi_heads.mask_predictor.mask_logits",
}
SCALES = {  # in between, a head doubles its map
    "decode_head.scale_heads.0.0": "head.scales.0.0.conv_bn",
    "decode_head.scale_heads.1.0": "head.scales.1.0.conv_bn",
    "decode_head.scale_heads.2.0": "head.scales.2.0.conv_bn",
    "decode_head.scale_heads.2.2": "head.scales.2.1.conv_bn",
    "decode_head.scale_heads.3.0": "head.scales.3.0.conv_bn",
    "decode_head.scale_heads.3.2": "head.scales.3.1.conv_bn",
    "decode_head.scale_heads.3.4": "head.scales.3.2.conv_bn",
}
NAMES = {
    "faster_rcnn": backbone_names() | spread(NECK | BOXES, ("weight", "bias")),
    "mask_rcnn": backbone_names() | spread(NECK | BOXES | MASKS, ("weight", "bias")),
    "semantic_fpn": backbone_names()
    | spread(NECK | {"decode_head.conv_seg": "head.classifier"}, ("weight", "bias"))
    | spread({f"{theirs}.conv": f"{ours}.conv" for theirs, ours in SCALES.items()}, ("weight",))
    | spread({f"{theirs}.bn": f"{ours}.bn" for theirs, ours in SCALES.items()}, NORM),
}


def small(task, seed=0, **kwargs):
    """A network with a different value everywhere."""
    classes = CLASSES if task == "semantic_fpn" else CLASSES + 1
    model = spikeformers.create_model(task, **{**OPTIONS, "num_classes": classes, **kwargs}).eval()
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.state_dict().items():
        if name.endswith("running_var"):
            value.copy_(0.5 + torch.rand(value.shape, generator=generator))
        elif value.is_floating_point():
            value.copy_(value + 0.1 * torch.randn(value.shape, generator=generator))
        else:
            value.fill_(seed)
    return model


def published(task, model):
    """The model's weights as OpenMMLab would have saved them: rows of classes reordered, the backbone's head still there."""
    own = model.state_dict()
    state = {theirs: own[ours].clone() for theirs, ours in NAMES[task].items()}
    for key in ("weight", "bias"):
        name = f"roi_head.bbox_head.fc_cls.{key}"
        if name in state:
            background, *classes = state[name]
            state[name] = torch.stack([*classes, background])
        for name, rows in {f"roi_head.bbox_head.fc_reg.{key}": 4, f"roi_head.mask_head.conv_logits.{key}": 1}.items():
            if name in state:
                state[name] = state[name][rows:]
    return state | {"backbone.head.weight": torch.ones(1000, 16), "backbone.head_kd.bias": torch.ones(1000)}


def loaded(task, state, **kwargs):
    model = small(task, seed=1, **kwargs)
    return model, spikeformers.load_published(model, state)


@pytest.mark.parametrize("task", NAMES)
def test_every_name_is_consumed_and_none_of_ours_is_missing(task):
    source = small(task)
    assert sorted(NAMES[task].values()) == sorted(source.state_dict()), "the table of names is not complete"
    state = published(task, source)
    model, report = loaded(task, {"state_dict": {f"module.{name}": value for name, value in state.items()}, "meta": {}})
    assert report.problems() == [] and report.loaded == len(source.state_dict())
    assert report.unused == ["backbone.head.weight", "backbone.head_kd.bias"]
    own, want = model.state_dict(), source.state_dict()
    for name, value in own.items():  # all but rows that no one reads
        rows = 4 if "box_predictor.bbox_pred" in name else 1 if "mask_logits" in name else 0
        assert_close(
            value[rows:] if rows else value, want[name][rows:] if rows else want[name], rtol=0, atol=0, msg=name
        )
        assert not rows or not value[:rows].any()


def test_a_segmentation_network_answers_the_same():
    source = small("semantic_fpn")
    state = published("semantic_fpn", source) | {"auxiliary_head.conv_seg.weight": torch.ones(CLASSES, 8, 1, 1)}
    model, report = loaded("semantic_fpn", state)
    assert "auxiliary_head.conv_seg.weight" in report.unused and report.notes == []
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        want = source(x)
        assert_close(model(x), want, rtol=0, atol=0)
        assert not torch.equal(small("semantic_fpn", seed=1)(x), want)


def test_heads_answer_as_mmdetections_would():
    """Against plain layers with mmdetection's weights: its classes 0 to K - 1 are our 1 to K, its background, K, is our 0."""
    state = published("mask_rcnn", small("mask_rcnn"))
    model, _ = loaded("mask_rcnn", state)
    heads, generator = model.roi_heads, torch.Generator().manual_seed(2)
    with torch.no_grad():
        x = torch.randn(2, 6, 1024, generator=generator)
        logits, deltas = heads.box_predictor(x)
        theirs = {
            layer: torch.nn.functional.linear(
                x, state[f"roi_head.bbox_head.{layer}.weight"], state[f"roi_head.bbox_head.{layer}.bias"]
            ).mean(0)
            for layer in ("fc_cls", "fc_reg")
        }
        assert_close(logits[:, 1:], theirs["fc_cls"][:, :CLASSES])
        assert_close(logits[:, 0], theirs["fc_cls"][:, CLASSES])
        for label in range(CLASSES):
            assert_close(deltas.unflatten(1, (-1, 4))[:, label + 1], theirs["fc_reg"][:, 4 * label : 4 * label + 4])
        spikes = heads.mask_predictor.lif(
            heads.mask_predictor.upsample(3 * torch.randn(2, 3, 16, 14, 14, generator=generator))
        )
        assert spikes.any()
        masks = heads.mask_predictor.mask_logits(spikes[0])
        layer = "roi_head.mask_head.conv_logits"
        want = torch.nn.functional.conv2d(spikes[0], state[f"{layer}.weight"], state[f"{layer}.bias"])
        assert_close(masks[:, 1:], want)


def test_a_detector_finds_the_same():
    source = small("mask_rcnn", min_size=64, max_size=64, box_score_thresh=0.0)
    model, report = loaded("mask_rcnn", published("mask_rcnn", source), min_size=64, max_size=64, box_score_thresh=0.0)
    assert "strides 32 and 64" in str(report) and "fine-tuning" in str(report)
    image = torch.rand(3, 64, 64)
    with torch.no_grad():
        want, found = source([image])[0], model([image])[0]
    assert len(want["labels"]) > 0
    assert_close(found, want, rtol=0, atol=0)


def test_the_report_names_settings_that_weights_do_not_reveal():
    _, report = loaded("semantic_fpn", published("semantic_fpn", small("semantic_fpn")), readout="logits")
    wanted = {"time_steps": 2, "num_heads": 2, "tau": 2.0, "readout": "logits"}
    assert wanted.items() <= report.not_in_weights.items()


def test_around_a_spikingformer():
    options = {
        "backbone": "spikingformer_8_384",
        "backbone_kwargs": {"embed_dim": 32, "depth": 1, "num_heads": 2},
        "width": 16,
        "time_steps": 1,
    }
    source = spikeformers.create_model("semantic_fpn", num_classes=3, **options)
    own = source.state_dict()
    theirs = {}
    rules = {
        r"backbone\.body\.stem\.(conv|bn)": r"backbone.patch_embed.proj_\1",
        r"backbone\.body\.tokenizer\.0\.conv_bn\.(conv|bn)": r"backbone.patch_embed.proj1_\1",
        r"backbone\.body\.tokenizer\.1\.conv_bn\.(conv|bn)": r"backbone.patch_embed.proj2_\1",
        r"backbone\.body\.tokenizer\.2\.conv_bn\.(conv|bn)": r"backbone.patch_embed.proj3_\1",
        r"backbone\.body\.tokenizer\.3\.conv_bn\.(conv|bn)": r"backbone.patch_embed.proj4_\1",
        r"backbone\.body\.stages\.0\.attention\.branch\.(\w+)\.(conv|bn)": r"backbone.block.0.attn.\1_\2",
        r"backbone\.body\.stages\.0\.mlp\.branch\.fc(\d)\.(conv|bn)": r"backbone.block.0.mlp.mlp\1_\2",
    }
    for name, value in own.items():
        for pattern, replacement in rules.items():
            name = re.sub(f"^{pattern}", replacement, name)
        theirs[name] = torch.full_like(value, 3)
    body = {
        name: value
        for name, value in theirs.items()
        if name.startswith("backbone.") and not name.startswith("backbone.neck.")
    }
    assert not any(name.startswith("backbone.body.") for name in body)
    report = spikeformers.load_published(source, theirs | {"backbone.block.0.norm1.weight": torch.ones(32)})
    assert report.problems() == [] and report.unused == ["backbone.block.0.norm1.weight"]
    assert all((value == 3).all() for value in source.state_dict().values())


# what does not fit


def error_of(model, state):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError) as error:
        spikeformers.load_published(model, state)
    assert_close(dict(model.state_dict()), before, rtol=0, atol=0)
    return str(error.value)


@pytest.mark.parametrize("task", NAMES)
def test_names_that_are_missing_or_unknown_are_listed(task):
    model = small(task)
    state = published(task, model)
    del state["neck.fpn_convs.2.conv.bias"], state["backbone.block3.0.mlp.fc1_conv.weight"]
    message = error_of(
        model, state | {"neck.fpn_convs.4.conv.weight": torch.ones(1), "backbone.block3.0.extra": torch.ones(1)}
    )
    assert f"does not fit this {type(model).__name__}" in message
    assert "in the model only: backbone.neck.output.2.layer.bias" in message
    assert "in the model only: backbone.body.stages.3.blocks.0.mlp.branch.fc1.conv.weight" in message
    assert "in the checkpoint only: neck.fpn_convs.4.conv.weight" in message
    assert "in the checkpoint only: backbone.block3.0.extra" in message


def test_layers_of_a_scale_head_lie_two_places_apart():
    model = small("semantic_fpn")
    state = published("semantic_fpn", model)
    state["decode_head.scale_heads.3.1.conv.weight"] = state.pop("decode_head.scale_heads.3.2.conv.weight")
    message = error_of(model, state)
    assert "in the checkpoint only: decode_head.scale_heads.3.1.conv.weight" in message
    assert "in the model only: head.scales.3.1.conv_bn.conv.weight" in message


def test_another_number_of_classes():
    state = published("mask_rcnn", small("mask_rcnn"))
    model = small("mask_rcnn", seed=1, num_classes=8)
    message = error_of(model, state)
    assert "shape: roi_head.bbox_head.fc_cls.weight is [5, 1024], the model has [8, 1024]" in message
    assert "shape: roi_head.bbox_head.fc_reg.bias is [20] with rows for the background, the model has [32]" in message
    assert "create the model with num_classes=5, as the checkpoint has it; classes count the background" in message
    report = spikeformers.load_published(model, state, strict=False)
    assert len(report.mismatched) == 6 and report.missing == report.unexpected == []
    assert_close(model.rpn.head.cls_logits.weight, state["rpn_head.rpn_cls.weight"], rtol=0, atol=0)

    message = error_of(
        small("semantic_fpn", num_classes=9, head_width=8), published("semantic_fpn", small("semantic_fpn"))
    )
    assert "create the model with num_classes=4, as the checkpoint has it\n" in message + "\n"
    assert "create the model with head_width=128, as the checkpoint has it" in message


def test_float_heads_have_no_published_names():
    model = small("faster_rcnn", heads="float", readout="neck")
    message = error_of(model, published("faster_rcnn", small("faster_rcnn")))
    assert "in the model only: backbone.neck.inner_blocks.0.0.bias" in message
    assert "only networks with heads='spiking' have published names" in message


def test_a_mask_head_has_no_place_in_faster_rcnn():
    message = error_of(small("faster_rcnn"), published("mask_rcnn", small("mask_rcnn")))
    assert "in the checkpoint only: roi_head.mask_head.convs.0.conv.weight" in message


@pytest.mark.parametrize("strict", [True, False])
def test_a_classifier_belongs_into_the_backbone(strict):
    model = small("mask_rcnn")
    classifier = {name.removeprefix("backbone."): value for name, value in published("mask_rcnn", model).items()}
    classifier = {
        name: value for name, value in classifier.items() if re.match("downsample|ConvBlock|block|head", name)
    }
    with pytest.raises(
        ValueError, match=r"a SpikingMaskRCNN.*load_published\(model.backbone.body, .*strict=False\).*model.weights"
    ):
        spikeformers.load_published(model, classifier, strict=strict)
    body = small("mask_rcnn", seed=1).backbone.body
    report = spikeformers.load_published(body, classifier | {"head_kd.weight": torch.ones(1000, 16)}, strict=False)
    assert report.missing == report.mismatched == []
    assert not body.distillation, "a backbone without classes got a second head"
    assert_close(body.stem.conv.weight, classifier["downsample1_1.encode_conv.weight"], rtol=0, atol=0)


def test_a_detector_does_not_belong_into_a_classifier():
    model = spikeformers.create_model("meta_spikeformer_15m", num_classes=5, **BACKBONE)
    message = error_of(model, published("faster_rcnn", small("faster_rcnn")))
    assert "does not fit this MetaSpikeFormer" in message and "create_model('mask_rcnn', backbone=NAME)" in message


def test_our_own_names_are_taken_as_they_are():
    source = small("mask_rcnn")
    model, report = loaded("mask_rcnn", source.state_dict())
    assert report.problems() == [] and report.notes == []
    assert_close(model.state_dict(), source.state_dict(), rtol=0, atol=0)


def test_our_own_names_around_a_backbone_that_nobody_published():
    options = {"backbone": "spiking_resnet18", "time_steps": 1, "num_classes": 3, "width": 16}
    first, second = (spikeformers.create_model("semantic_fpn", **options) for _ in range(2))
    spikeformers.load_published(second, first.state_dict())
    assert_close(second.state_dict(), first.state_dict(), rtol=0, atol=0)


# for good


@pytest.mark.parametrize("task", ["mask_rcnn", "semantic_fpn"])
def test_import_reads_sizes_off_the_weights(task, tmp_path):
    head = {"head_width": 24} if task == "semantic_fpn" else {}
    source = small(task, width=8, backbone_kwargs={**BACKBONE, "in_chans": 2}, **head)
    torch.save({"state_dict": published(task, source), "meta": {"epoch": 12}}, tmp_path / "theirs.pth")
    options = {"backbone": "meta_spikeformer_15m", "backbone_kwargs": BACKBONE, "time_steps": 2}
    report = import_checkpoint(tmp_path / "theirs.pth", tmp_path / "ours.safetensors", task, **options)
    assert report.problems() == []
    model = spikeformers.create_model(checkpoint=tmp_path / "ours.safetensors").eval()
    sizes = {name: model.config[name] for name in ("num_classes", "width", *head)}
    assert sizes == {name: source.config[name] for name in sizes} and model.in_chans == 2
    assert_close(
        model.backbone.neck.lateral[3].layer.weight, source.backbone.neck.lateral[3].layer.weight, rtol=0, atol=0
    )


def test_import_asks_for_the_network_and_its_backbone(tmp_path):
    torch.save(published("faster_rcnn", small("faster_rcnn")), tmp_path / "theirs.pth")
    out = tmp_path / "ours.safetensors"
    for name in (None, "meta_spikeformer_15m"):
        with pytest.raises(ValueError, match="--model NAME --backbone NAME; networks are .*mask_rcnn, semantic_fpn"):
            import_checkpoint(tmp_path / "theirs.pth", out, name)
    with pytest.raises(ValueError, match="faster_rcnn needs a backbone"):
        import_checkpoint(tmp_path / "theirs.pth", out, "faster_rcnn")
    torch.save(
        {"head.weight": torch.ones(5, 16), "downsample1_1.encode_conv.bias": torch.ones(8)}, tmp_path / "classifier.pth"
    )
    with pytest.raises(ValueError, match="load a classifier's into its backbone"):
        import_checkpoint(tmp_path / "classifier.pth", out, "faster_rcnn", **OPTIONS)
    assert not out.exists()
