"""Networks by name: what is said when they cannot be had, that nothing is unpickled, and that saved ones are the same."""

import json
import pickle
import time

import pytest
import timm
import torch
import torchvision
from torch.testing import assert_close

from spikeformers.transforms.sta import convert, load_converted, load_source, save_converted

SMALL = dict(img_size=16, patch_size=8, depth=1, embed_dim=24, num_heads=3, num_classes=2)


def offline(*args, **kwargs):
    raise OSError("no route to host")


def test_what_cannot_be_downloaded_is_said(monkeypatch):
    monkeypatch.setattr(timm, "create_model", offline)
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    for name in ("timm:vit_tiny_patch16_224", "torchvision:squeezenet1_1"):
        with pytest.raises(
            ValueError, match=f"pretrained weights of {name} could not be found on this disk nor downloaded"
        ):
            load_source(name)


def test_wrong_options_are_not_taken_for_missing_weights(tmp_path):
    weights = tmp_path / "weights.pth"
    torch.save({"other": torch.ones(1)}, weights)
    for name, kwargs, words in (
        ("vit_tiny_patch16_224", {"depht": 2}, "depht.*check --kwargs"),
        ("no_such_model", {}, "no_such_model.*lists its models"),
        ("torchvision:no_such_model", {}, "no_such_model.*lists its models"),
        ("vit_tiny_patch16_224", SMALL, "do not fit the model"),
    ):
        with pytest.raises(ValueError, match=words):
            load_source(name, kwargs, weights)


class Bomb:
    def __reduce__(self):
        return exec, ("raise SystemExit('unpickled')",)


def test_weights_in_the_cache_are_not_unpickled(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    url = torchvision.models.get_model_weights("squeezenet1_1").DEFAULT.url
    cached = tmp_path / "hub" / "checkpoints" / url.rpartition("/")[2]
    cached.parent.mkdir(parents=True)
    cached.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match="torchvision:squeezenet1_1"):
        load_source("torchvision:squeezenet1_1")


def saved(model, x, folder, **how):
    """What a converted network answers, before and after it was on disk."""
    converted = convert(model, x, 8, **how)
    save_converted(converted, folder / "made.safetensors")
    return converted(x), load_converted(folder / "made.safetensors")(x)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_type_of_weights_is_kept(tmp_path, dtype):
    torch.manual_seed(0)
    weights = tmp_path / "weights.pth"
    torch.save(timm.create_model("vit_tiny_patch16_224", **SMALL).state_dict(), weights)
    before, after = saved(
        load_source("vit_tiny_patch16_224", SMALL, weights).to(dtype), torch.randn(4, 3, 16, 16).to(dtype), tmp_path
    )
    assert after.dtype == dtype
    assert_close(before, after, rtol=0, atol=0)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_attention_of_hugging_face_is_kept(tmp_path, attention):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    vision = dict(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=48, image_size=16, patch_size=8
    )
    transformers.ViTForImageClassification(transformers.ViTConfig(**vision)).save_pretrained(tmp_path / "vit")
    model = load_source(f"transformers:{tmp_path / 'vit'}", {"attn_implementation": attention})
    before, after = saved(model, torch.randn(4, 3, 16, 16), tmp_path)
    assert_close(before["logits"], after["logits"], rtol=0, atol=0)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "hf-hub:someone/something"},
        {"kwargs": SMALL | {"checkpoint_path": "x.pth"}},
        {"name": "no_such_model"},
        {"library": "pipeline"},
    ],
)
def test_a_stranger_s_description_makes_nothing_else(tmp_path, change):
    torch.manual_seed(0)
    weights = tmp_path / "weights.pth"
    torch.save(timm.create_model("vit_tiny_patch16_224", **SMALL).state_dict(), weights)
    saved(load_source("vit_tiny_patch16_224", SMALL, weights), torch.randn(4, 3, 16, 16), tmp_path)
    path = tmp_path / "made.json"
    config = json.loads(path.read_text())
    config["converted"] |= change
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match="cannot be made"):
        load_converted(tmp_path / "made.safetensors")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "vit_large_patch16_224", "kwargs": {"depth": 48}}, "it says 48 blocks, and there are"),
        ({"name": "vit_large_patch16_224", "kwargs": {}}, "do not fit the network that it describes: blocks"),
        ({"kwargs": {**SMALL, "embed_dim": 3 * 2**15}}, "do not fit the network that it describes"),
        ({"kwargs": {**SMALL, "depth": 1_000_000}}, "it says 1,000,000 blocks"),
        ({"kwargs": 3}, "describes a network that cannot be made"),
    ],
)
def test_a_small_file_that_stands_for_a_large_network_is_named(tmp_path, change, words):
    weights = tmp_path / "weights.pth"
    torch.save(timm.create_model("vit_tiny_patch16_224", **SMALL).state_dict(), weights)
    model, path = load_source("vit_tiny_patch16_224", SMALL, weights), tmp_path / "made.safetensors"
    save_converted(convert(model, torch.randn(4, 3, 16, 16), 8), path)
    config = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps({**config, "converted": {**config["converted"], **change}}))
    start = time.process_time()
    with pytest.raises(ValueError, match=words):
        load_converted(path)
    assert time.process_time() - start < 5
    with path.with_suffix(".json").open("wb") as file:
        file.truncate(65 * 2**20)
    with pytest.raises(ValueError, match="no converted network"):
        load_converted(path)


def test_networks_that_compute_their_widths_from_tensors_are_read_again(tmp_path):
    model = torchvision.models.regnet_y_400mf(weights=None, num_classes=2)
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    source = load_source("torchvision:regnet_y_400mf", {"num_classes": 2}, tmp_path / "weights.pth")
    before, after = saved(source, torch.randn(2, 3, 32, 32), tmp_path)
    assert_close(before, after, rtol=0, atol=0)
