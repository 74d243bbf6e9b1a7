"""Samples that are not finite, and what checkpoints say of their input."""

import json
import math
import time
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from timm.data import resolve_model_data_config
from torch import nn

import spikeformers
from spikeformers.data.samples import PADDING_LABEL
from spikeformers.evaluation import Evaluation, evaluate, load_trained, save_trained
from spikeformers.measure import Accuracy, Tally


class ByHeart(nn.Module):
    """Logits [T, B, 2] for class 1 by the mean of the images' finite pixels, as spiking neurons never fire at NaN; infinite above 5."""

    def forward(self, x, per_step=False):
        mean = x.nan_to_num(0.0).flatten(-3).mean(-1)
        logits = torch.stack([-mean, mean], -1)
        logits = torch.where(logits.abs() > 5, math.inf, logits)
        return logits[None] if x.ndim == 4 else logits


@pytest.mark.parametrize("steps", [None, 3])
def test_samples_that_are_not_finite_are_named_and_count_as_wrong(monkeypatch, steps):
    images = torch.ones(6, 1, 2, 2) * torch.tensor([-1.0, 1, -1, 1, 1, 9]).view(6, 1, 1, 1)
    images[1, 0, 0, 0] = math.nan
    labels = torch.tensor([0, 1, 0, PADDING_LABEL, 0, 1])
    images = images if steps is None else images.expand(steps, 6, 1, 2, 2)
    batches = [(images[..., :4, :, :, :], labels[:4]), (images[..., 4:, :, :, :], labels[4:])]
    monkeypatch.setattr("spikeformers.evaluation.classification.test_loader", lambda samples: batches)
    samples = SimpleNamespace(where="sample {}".format, classes=["a", "b"], data=SimpleNamespace(name="x"))
    with pytest.warns(UserWarning, match="2 samples hold or lead to .* wrong: sample 1, sample 5"):
        result = evaluate(ByHeart(), samples)
    assert result.samples == 5 and result.accuracy == 2 / 5
    assert math.isfinite(result.loss) and "not finite   2 samples" in result.as_text("x")
    monkeypatch.setattr(
        "spikeformers.evaluation.classification.test_loader",
        lambda samples: batches[:0] + [(images[..., :1, :, :, :], labels[:1])],
    )
    assert evaluate(ByHeart(), samples).not_finite == ""


def test_a_checkpoints_model_says_how_its_input_was_prepared(tmp_path):
    options = {"embed_dim": 16, "depth": 1, "num_heads": 2, "num_classes": 3}
    digits = {"name": "digits", "img_size": 16, "channels": 1, "mean": [0.3], "std": [0.4]}
    for data, channels, size, mean in (
        (digits, 1, (1, 16, 16), (0.3,)),
        ({"name": "nmnist", "time_steps": 2}, 2, (2, 34, 34), (0, 0)),
    ):
        model = spikeformers.create_model("spikingformer_cifar_2_256", **options, in_chans=channels)
        content = {"model_config": model.config, "known": {"data": data, "classes": ["a", "b", "c"]}}
        torch.save(
            {**content, "state_dict": {f"model.{name}": value for name, value in model.state_dict().items()}},
            tmp_path / "best.ckpt",
        )
        trained = load_trained(tmp_path / "best.ckpt")
        save_trained(trained, tmp_path / "best.safetensors")
        for found in (trained.model, spikeformers.create_model(checkpoint=tmp_path / "best.safetensors")):
            config = resolve_model_data_config(found)
            assert (config["input_size"], config["mean"]) == (size, mean)
            assert found.pretrained_cfg["label_names"] == ("a", "b", "c")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content: content["model_config"].update(embed_dim=2**15), "its weights are not those of its model"),
        (lambda content: content["model_config"].update(depth=100_000), "it says 100,000 blocks, and there are"),
        (
            lambda content: content["model_config"].update(checkpoint="/etc/x.safetensors"),
            "has the entries checkpoint, which are no options",
        ),
        (
            lambda content: content["model_config"].update(pretrained=True),
            "has the entries pretrained, which are no options",
        ),
        (
            lambda content: content["state_dict"]["model.head.weight"].fill_(math.nan),
            "head.weight has 48 values of 48 that are NaN",
        ),
        (
            lambda content: content["state_dict"].update({"model.head.weight": torch.zeros(1).expand(2**20, 2**10)}),
            "claims 1,073,741,824 values",
        ),
        (
            lambda content: content["state_dict"].update({"model.head.weight": 3}),
            "is no checkpoint of `spikeformers train`",
        ),
    ],
)
def test_hostile_checkpoints_of_runs_are_named_before_they_take_memory(change, words, tmp_path):
    model = spikeformers.create_model("spikingformer_cifar_2_256", embed_dim=16, depth=1, num_heads=2, num_classes=3)
    state = {f"model.{name}": value.clone() for name, value in model.state_dict().items()}
    content = {"model_config": dict(model.config), "known": {"data": None, "classes": None}, "state_dict": state}
    change(content)
    torch.save(content, tmp_path / "best.ckpt")
    start = time.process_time()
    with pytest.raises(ValueError, match=words):
        load_trained(tmp_path / "best.ckpt")
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<!DOCTYPE html><p>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1", "a pointer of Git LFS"),
        (b"", "empty: a download"),
    ],
)
def test_runs_that_are_other_files_are_named(content, words, tmp_path):
    (tmp_path / "best.ckpt").write_bytes(content)
    with pytest.raises(ValueError, match=f"is no checkpoint of `spikeformers train`: it is .*{words}"):
        load_trained(tmp_path)


def answers_of(labels, given, classes):
    answers = Accuracy()
    answers.update(torch.eye(classes)[given] * 3, torch.tensor(labels))
    return answers


def test_classes_and_mistakes_are_named(tmp_path):
    labels, given = [0, 0, 0, 0, 1, 1, 2], [0, 0, 0, 1, 2, 2, 2]
    result = Evaluation(answers_of(labels, given, 4), Tally(), "", ["cat", "dog", "eel", "fly"], "pets")
    assert result.accuracy_per_class == {"cat": 0.75, "dog": 0.0, "eel": 1.0, "fly": None}
    assert result.most_confused() == [("dog", "eel", 1.0), ("cat", "dog", 0.25)]
    lines = result.as_text("pets").splitlines()
    assert (
        "by class     dog 0.0%, cat 75.0%, eel 100.0%" in lines
        and "confused     dog as eel 100.0%, cat as dog 25.0%" in lines
    )
    assert repr(result) == str(result) == result.as_text("pets") and "<td" in result._repr_html_()

    files = result.write(tmp_path / "new")
    assert [file.name for file in files] == ["evaluation.json", "classes.csv", "confusion.csv", "confusion.png"]
    numbers = json.loads(files[0].read_text())
    assert numbers["accuracy"] == result.accuracy and Accuracy.from_dict(numbers["answers"]) == result.answers
    assert files[1].read_text().splitlines() == [
        "class,samples,accuracy",
        "cat,4,0.75",
        "dog,2,0.0",
        "eel,1,1.0",
        "fly,0,",
    ]
    assert files[2].read_text().splitlines()[:3] == ["class,cat,dog,eel,fly", "cat,3,1,0,0", "dog,0,0,2,0"]
    assert min(Image.open(files[3]).size) > 500


def test_of_many_classes_the_worst_are_named():
    labels = list(range(100)) * 2
    given = [(label + 1) % 100 if place < 3 else label for place, label in enumerate(labels)]
    line = next(
        line
        for line in Evaluation(answers_of(labels, given, 100), Tally()).as_text("x").splitlines()
        if line.startswith("by class")
    )
    assert line.startswith(
        "by class     class 0 50.0%, class 1 50.0%, class 2 50.0%, class 10 100.0%"
    ) and line.endswith("... of 100")


def test_folders_are_predicted_and_broken_files_named(tmp_path, capsys):
    """By the command, with the network that ships."""
    from spikeformers.cli import main

    for name, colour in (("a.png", "white"), ("b.jpg", "red")):
        Image.new("RGB", (40, 40), colour).save(tmp_path / name)
    (tmp_path / "c.png").write_bytes(b"no image")
    table, numbers = tmp_path / "out.csv", tmp_path / "out.json"
    words = ["predict", "spiking_resnet_edge", str(tmp_path), "--top", "2", "--csv", str(table), "--json", str(numbers)]
    assert main(words) == 2
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert [line.partition(": ")[0] for line in lines[:2]] == [str(tmp_path / name) for name in ("a.png", "b.jpg")]
    assert f"{tmp_path / 'c.png'}: left out" in err and "1 of 3 files could not be read" in err
    assert (
        table.read_text().splitlines()[0] == "file,rank,class,probability" and len(table.read_text().splitlines()) == 5
    )
    read = json.loads(numbers.read_text())["answers"]
    assert [len(answer.get("classes", [])) for answer in read] == [2, 2, 0] and "error" in read[2]


def test_a_table_of_nothing_is_empty(tmp_path, capsys):
    from spikeformers.cli import main

    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"no image")
    assert main(["predict", "spiking_resnet_edge", str(tmp_path), "--csv", str(tmp_path / "out.csv")]) == 2
    assert "2 of 2 files could not be read" in capsys.readouterr().err and (tmp_path / "out.csv").read_text() == ""
