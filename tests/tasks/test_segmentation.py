import json

import pytest
import torch
from torch.testing import assert_close

import spikeformers


@pytest.mark.parametrize(("size", "options", "millions"), [("15m", {}, 16.5), ("55m", {"width": 256}, 59.0)])
def test_parameters_are_as_many_as_published(size, options, millions):
    with torch.device("meta"):
        model = spikeformers.create_model("semantic_fpn", backbone=f"meta_spikeformer_{size}", **options)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 1) == millions


@pytest.mark.parametrize("time_steps", [1, 4])
@pytest.mark.parametrize("shape", [(1, 3, 64, 96), (2, 3, 50, 71)], ids=str)
def test_every_pixel_gets_logits_and_every_parameter_a_gradient(network, time_steps, shape):
    model = network("semantic_fpn", time_steps=time_steps).train()
    x = torch.randn(shape)
    logits = model(x)
    assert logits.shape == (shape[0], 4, *shape[2:])
    torch.nn.functional.cross_entropy(logits, torch.randint(4, (shape[0], *shape[2:]))).backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    if time_steps == 1:  # the mean of several steps hardly makes the neurons of an untrained neck fire
        assert all(p.grad.any() for p in model.head.parameters())


def test_maps_are_those_of_the_published_network():
    model = spikeformers.create_model("semantic_fpn", backbone="meta_spikeformer_15m")
    infos = [model.feature_info[i] for i in model.backbone.stages]
    assert [(info["reduction"], info["num_chs"]) for info in infos] == [(2, 32), (4, 64), (8, 128), (16, 360)]
    assert [len(scale) for scale in model.head.scales] == [1, 1, 2, 3]


def test_neck_and_head_see_one_step_or_all(network):
    x = torch.randn(1, 3, 64, 64)
    assert len(network("semantic_fpn", time_steps=3).backbone(x)["0"]) == 1
    model = network("semantic_fpn", time_steps=3, readout="logits")
    assert len(model.backbone(x)["0"]) == 3
    seen = []
    model.head.classifier.register_forward_hook(lambda module, args, output: seen.append(output))
    logits = model(x)
    assert_close(logits[..., ::2, ::2].shape, seen[0].mean(0, keepdim=True).shape)
    want = torch.nn.functional.interpolate(
        seen[0].mean(0, keepdim=True), size=(64, 64), mode="bilinear", align_corners=False
    )
    assert_close(logits, want)


def test_an_image_is_answered_alike_alone_and_among_others(network):
    model, x = network("semantic_fpn").double(), torch.randn(3, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        assert_close(model(x)[1:2], model(x[1:2]))


def test_float_heads_have_no_neurons(network):
    from spikeformers.neurons import Neuron

    model = network("semantic_fpn", heads="float")
    assert not [name for name, module in model.named_modules() if isinstance(module, Neuron) and ".body." not in name]
    assert model(torch.randn(1, 3, 64, 64)).shape == (1, 4, 64, 64)
    with pytest.raises(ValueError, match="readout='neck'"):
        network("semantic_fpn", heads="float", readout="logits")


@pytest.mark.parametrize(
    "backbone", ["meta_spikeformer_cifar", "spikingformer_cifar_2_256", "spiking_vgg9", "sew_resnet18"]
)
def test_any_backbone_of_images_or_events(backbone):
    model = spikeformers.create_model(
        "semantic_fpn", backbone=backbone, num_classes=3, width=8, head_width=8, time_steps=2
    )
    x = torch.rand(2, 1, 2, 48, 48).round() if model.in_chans == 2 else torch.randn(1, 3, 48, 48)
    assert model(x).shape == (1, 3, 48, 48)


@pytest.mark.parametrize("norm", [False, True])
def test_a_saved_network_is_the_same_again(tmp_path, norm):
    options = {"dims": [8, 16, 24, 32], "schedule": [4, 4, 2, 2, 1]}
    model = spikeformers.create_model(
        "semantic_fpn", backbone="meta_spikeformer_15m", num_classes=5, width=16, norm=norm, backbone_kwargs=options
    )
    x = torch.randn(2, 3, 64, 64)
    model.train()(x)
    spikeformers.save_model(model.eval(), tmp_path / "segmenter.safetensors")
    again = spikeformers.create_model(checkpoint=tmp_path / "segmenter.safetensors").eval()
    assert again.schedule == [4, 4, 2, 2, 1] and again.config == json.loads(json.dumps(model.config))
    assert_close(again(x), model(x), rtol=0, atol=0)


@pytest.mark.parametrize("cost", ["cpu", "neuromorphic"])
def test_merged_networks_answer_the_same(network, cost):
    model, x = network("semantic_fpn").double(), torch.randn(1, 3, 64, 96, dtype=torch.float64)
    merged = spikeformers.merge(model, cost)
    assert not [module for module in merged.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    with torch.no_grad():
        assert_close(merged(x), model(x))


@pytest.mark.parametrize("size", [(64, 96), (50, 71)], ids=str)
def test_merged_for_neuromorphic_hardware_it_only_adds(network, size):
    model, x = network("semantic_fpn"), torch.randn(1, 3, *size)
    found = spikeformers.audit(spikeformers.merge(model, "neuromorphic"), x)
    assert found.additions_only, found
    assert any(finding.operation == "bilinear doubling" for finding in found.allowed)
    assert not spikeformers.audit(model, x).additions_only


def test_a_backbone_that_keeps_the_size_only_adds_too():
    torch.manual_seed(0)
    model = spikeformers.create_model(
        "semantic_fpn", backbone="meta_spikeformer_cifar", num_classes=3, width=8, head_width=8, time_steps=1
    )
    found = spikeformers.audit(spikeformers.merge(model, "neuromorphic"), torch.randn(1, 3, 32, 32))
    assert found.additions_only, found


def test_odd_sizes_are_padded_to_the_largest_stride(network):
    model, x = network("semantic_fpn"), torch.randn(1, 3, 50, 71)
    padded = torch.nn.functional.pad(x, (0, 9, 0, 14))
    assert_close(model(x), model(padded)[..., :50, :71], rtol=0, atol=0)


def test_profiles_and_estimates_cover_neck_and_head(network):
    model = network("semantic_fpn")
    names = {
        "backbone.neck.lateral.0.layer",
        "backbone.neck.output.3.layer",
        "head.scales.3.2.conv_bn.conv",
        "head.classifier",
    }
    for profile in (
        spikeformers.profile(model, torch.randn(1, 3, 64, 64), merged=False),
        spikeformers.estimate(model, (3, 64, 64), 0.2),
    ):
        assert names <= {layer.name for layer in profile.layers}
