"""Weights that ship: found by name and tag, checked, loaded by us and by timm without a network."""

import json
import shutil

import pytest
import timm
import torch
from torch.testing import assert_close

import spikeformers
from spikeformers.models import shipped as module
from spikeformers.models.shipped import find_shipped, ship, shipped, shipped_file
from spikeformers.training.initial import load_initial

KEYS = list(shipped())


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty place for what ships."""
    monkeypatch.setattr(module, "FOLDER", tmp_path)
    shipped.cache_clear()
    shipped_file.cache_clear()
    yield tmp_path
    shipped.cache_clear()
    shipped_file.cache_clear()


@pytest.fixture
def network(folder):
    """A tiny network that ships as spiking_resnet_edge.tiny."""
    torch.manual_seed(0)
    model = spikeformers.create_model("spiking_resnet_edge", dims=(16, 16, 16, 16), num_classes=3)
    ship(model, "spiking_resnet_edge.tiny", {}, {"accuracy": 0.5})
    return model


def test_every_network_that_ships_is_whole():
    for key in KEYS:
        model = spikeformers.create_model(key, pretrained=True)
        entry = shipped()[key]
        assert sum(p.numel() for p in model.parameters()) == entry["parameters"]
        assert model.time_steps == entry["time_steps"] and 0 < entry["accuracy"] < 1 and 0 < entry["firing_rate"] < 1
        again = timm.create_model(key, pretrained=True)
        assert all(
            torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True)
        )
        assert next(model.parameters()).dtype == torch.float32


def test_what_ships_is_small():
    assert sum(path.stat().st_size for path in module.FOLDER.glob("*")) < 20e6


def test_half_precision_and_options_are_kept(network):
    entry = json.loads((module.FOLDER / "index.json").read_text())["spiking_resnet_edge.tiny"]
    assert entry["accuracy"] == 0.5 and len(entry["sha256"]) == 64
    loaded = spikeformers.create_model("spiking_resnet_edge.tiny", pretrained=True, time_steps=2)
    assert loaded.num_classes == 3 and loaded.time_steps == 2 and loaded.config["dims"] == [16, 16, 16, 16]
    for name, value in network.state_dict().items():
        assert_close(
            loaded.state_dict()[name],
            value.half().float() if "running_" not in name and value.is_floating_point() else value,
        )


def test_training_starts_from_what_ships(network, folder):
    model = spikeformers.create_model("spiking_resnet_edge", dims=(16, 16, 16, 16), num_classes=3)
    load_initial(model, folder / "spiking_resnet_edge.tiny.safetensors")
    assert_close(model.head.weight, network.head.weight.half().float())


def test_damaged_and_missing_files_are_named(network, folder):
    path = folder / "spiking_resnet_edge.tiny.safetensors"
    whole = path.read_bytes()
    for content in (whole[:-10], whole[:-1] + b"x"):
        shipped_file.cache_clear()
        path.write_bytes(content)
        with pytest.raises(ValueError, match="spiking_resnet_edge.tiny.safetensors is not the file that was released"):
            spikeformers.create_model("spiking_resnet_edge", pretrained=True)
    path.unlink()
    shipped_file.cache_clear()
    with pytest.raises(ValueError, match="spiking_resnet_edge.tiny.safetensors or the .json file beside it is missing"):
        spikeformers.create_model("spiking_resnet_edge", pretrained=True)


def test_names_without_weights():
    assert find_shipped("spikingformer_8_768") is None
    with pytest.raises(ValueError, match="no weights of spikingformer_8_768 ship with this library"):
        spikeformers.create_model("spikingformer_8_768", pretrained=True)
    with pytest.raises(ValueError, match="no weights of spikingformer_8_768 ship"):
        timm.create_model("spikingformer_8_768", pretrained=True)


def test_only_a_model_under_its_own_name_ships(network):
    for key in ("spiking_resnet18.tiny", "spiking_resnet_edge"):
        with pytest.raises(ValueError, match="weights of spiking_resnet_edge ship as spiking_resnet_edge.TAG"):
            ship(network, key, {}, {})


@pytest.mark.skipif(not KEYS, reason="nothing ships")
def test_another_number_of_classes_leaves_the_classifier_out():
    model = spikeformers.create_model(KEYS[0], pretrained=True, num_classes=7)
    same = spikeformers.create_model(KEYS[0], pretrained=True)
    assert model.head.out_features == 7
    assert torch.equal(model.stem.conv.weight, same.stem.conv.weight)


@pytest.mark.skipif(shutil.which("uv") is None, reason="uv is not installed")
@pytest.mark.slow
def test_a_wheel_holds_the_weights(tmp_path):
    import subprocess
    import zipfile
    from pathlib import Path

    root = Path(module.__file__).parents[3]
    subprocess.run(["uv", "build", "--wheel", "--no-build-isolation", "-o", str(tmp_path), str(root)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for key in KEYS:
        assert f"spikeformers/weights/{key}.safetensors" in names and f"spikeformers/weights/{key}.json" in names
    assert not KEYS or "spikeformers/weights/index.json" in names
    recipes = [path.name for path in root.glob("src/spikeformers/recipes/*.yaml")]
    assert recipes and all(f"spikeformers/recipes/{name}" in names for name in recipes)
    assert "spikeformers/profiling/page/page.html" in names
