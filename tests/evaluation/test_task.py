"""Tasks are found by their names."""

import pytest
import torch
from torch import nn

from spikeformers.evaluation import Trained, evaluate_any, find_task, predict_any

from .conftest import Fakes


@pytest.mark.parametrize("task", ["detection", "segmentation", "classification"])
def test_a_test_without_images_is_an_error(task, monkeypatch):
    samples = Fakes(task, [] if task == "classification" else [([torch.zeros(3, 8, 8)], [None])])
    monkeypatch.setattr("spikeformers.evaluation.classification.test_loader", lambda samples: samples)
    with pytest.raises(ValueError, match="no test sample that could be read; check data.root"):
        evaluate_any(nn.Identity(), samples)


def test_a_task_that_nobody_knows_is_an_error():
    with pytest.raises(ValueError, match="no task 'counting'; give one of classification, detection, segmentation"):
        find_task("counting")


def test_predictions_need_to_know_how_images_are_prepared():
    with pytest.raises(ValueError, match="does not say how its images are prepared"):
        predict_any(Trained(nn.Identity(), None, None), ["photo.png"])


def test_costs_are_measured_on_samples_of_other_classes(capsys, tmp_path):
    """The network that ships knows ten classes, and these images are of two."""
    from PIL import Image

    from spikeformers.cli import main

    for split in ("train", "val"):
        for name, colour in (("bar", "white"), ("box", "red")):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            Image.new("RGB", (32, 32), colour).save(folder / "1.png")
    words = ["profile", "spiking_resnet_edge", "--data.name", "folder", "--data.root", str(tmp_path)]
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert "mJ per sample" in out and "accuracy  " not in out and "accuracy is left out" in err
    assert main(["eval", *words[1:]]) == 2
    assert "knows the classes" in capsys.readouterr().err
