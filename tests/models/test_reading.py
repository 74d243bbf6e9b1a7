"""Checkpoint files of others, and files that are something else."""

import json

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.utils.prune

import spikeformers
from spikeformers.models import import_checkpoint, load_published

TINY = dict(embed_dim=16, depth=1, num_heads=2, num_classes=10)


def tiny(**given):
    torch.manual_seed(0)
    return spikeformers.create_model("spikingformer_cifar_2_256", **{**TINY, **given})


def theirs(**given):
    return tiny(**given).state_dict()


def test_numbers_of_numpy_are_plain_data(tmp_path):
    extra = {
        "metric": np.float64(77.2),
        "best": np.int32(3),
        "flag": np.bool_(True),
        "rng": np.random.get_state(),
        "array": np.zeros((2, 3), "f4"),
    }
    torch.save({"state_dict": theirs(), **extra}, tmp_path / "numpy.pth")
    assert load_published(tiny(), tmp_path / "numpy.pth").problems() == []
    content = spikeformers.models._reading.read_state_dict(tmp_path / "numpy.pth")
    assert (content["metric"], content["best"], content["flag"]) == (77.2, 3, True)
    assert "numpy" not in str(torch.serialization.get_safe_globals())


class History:
    """An object of a trainer."""


def test_the_object_that_is_refused_is_named(tmp_path):
    torch.save({"state_dict": theirs(), "history": History()}, tmp_path / "object.pth")
    with pytest.raises(ValueError) as error:
        load_published(tiny(), tmp_path / "object.pth")
    text = str(error.value)
    assert "object.pth" in text and "test_reading.History" in text
    assert "\x1b" not in text and "weights_only" not in text and "\n" not in text


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<!DOCTYPE html><html><title>Quota exceeded</title></html>", "a web page"),
        (b"\n <HTML>", "a web page"),
        (POINTER, "a pointer of Git LFS"),
        (b'{"error": "Repository not found"}', "the answer of a server"),
        (b"", "is empty"),
        (b"\x1f\x8b\x08\x00" + bytes(50), "gzip archive"),
        (b"\x89HDF\r\n\x1a\n" + bytes(50), "HDF5"),
    ],
    ids=["page", "upper case", "pointer", "server", "empty", "gzip", "hdf5"],
)
def test_files_that_are_something_else_are_named(content, words, suffix, tmp_path):
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)
    path.with_suffix(".json").write_text(json.dumps({"architecture": "spikingformer_cifar_2_256", **TINY}))
    readers = [lambda: load_published(tiny(), path), lambda: import_checkpoint(path, tmp_path / "out.safetensors")]
    for read in readers + [lambda: spikeformers.create_model(checkpoint=path)] * (suffix == ".safetensors"):
        with pytest.raises(ValueError, match=f"{path.name}.*{words}|{path.name} {words}"):
            read()


def test_checkpoints_in_several_files(tmp_path):
    state = theirs()
    names = sorted(state)
    halves = {"model-00001-of-00002": names[: len(names) // 2], "model-00002-of-00002": names[len(names) // 2 :]}
    for kind in ("safetensors", "bin"):
        folder = tmp_path / kind
        folder.mkdir()
        for part, own in halves.items():
            write = safetensors.torch.save_file if kind == "safetensors" else torch.save
            write({name: state[name] for name in own}, folder / f"{part}.{kind}")
        index = {"metadata": {}, "weight_map": {name: f"{part}.{kind}" for part, own in halves.items() for name in own}}
        (folder / f"model.{kind}.index.json").write_text(json.dumps(index))
        for path in (folder, folder / f"model.{kind}.index.json"):
            assert load_published(tiny(), path).loaded == len(state)
        with pytest.raises(ValueError, match="part 1 of 2 .* give the folder, or the .index.json"):
            load_published(tiny(), folder / f"model-00001-of-00002.{kind}")
    (folder / "model-00002-of-00002.bin").unlink()
    with pytest.raises(ValueError, match="not beside it: model-00002-of-00002.bin"):
        load_published(tiny(), folder)
    index["weight_map"]["head.bias"] = "../safetensors/model-00001-of-00002.safetensors"
    (folder / "model.bin.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="which is no file beside it"):
        load_published(tiny(), folder)
