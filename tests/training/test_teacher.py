"""Teachers: of timm or of this library, looking at images in their own normalisation."""

import csv
from dataclasses import replace

import pytest
import safetensors.torch
import timm
import torch
from torch.testing import assert_close

from spikeformers.data import ImageData
from spikeformers.evaluation import Trained, save_trained
from spikeformers.models import create_model
from spikeformers.training.recipe import Recipe, Training
from spikeformers.training.run import train
from spikeformers.training.teacher import teacher_of


@pytest.fixture
def dense(tmp_path):
    """cifar_resnet20 for two classes and the file of its weights, as others write it: without counters of batches."""
    torch.manual_seed(0)
    model = timm.create_model("cifar_resnet20", num_classes=2).eval()
    path = tmp_path / "dense.safetensors"
    safetensors.torch.save_file({k: v for k, v in model.state_dict().items() if "num_batches" not in k}, path)
    return model, Training(teacher="cifar_resnet20", teacher_weights=str(path))


def test_images_are_normalised_anew_for_a_teacher_used_to_other_statistics(dense):
    model, training = dense
    image = torch.rand(2, 3, 32, 32)

    def normalised(mean, std):
        return (image - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]

    cfg, data = model.pretrained_cfg, ImageData(mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616))
    want = model(normalised(cfg["mean"], cfg["std"]))
    assert_close(teacher_of(training, 2, data)(normalised(data.mean, data.std)), want)
    same = ImageData(mean=cfg["mean"], std=cfg["std"])
    assert torch.equal(teacher_of(training, 2, same)(normalised(cfg["mean"], cfg["std"])), want)


def test_a_teacher_that_lacks_weights_is_refused(dense, tmp_path):
    model, training = dense
    state = safetensors.torch.load_file(training.teacher_weights)
    del state["bn1.weight"]
    safetensors.torch.save_file(state, tmp_path / "cut.safetensors")
    with pytest.raises(ValueError, match="does not fit: 1 names are missing or left over, such as bn1.weight"):
        teacher_of(replace(training, teacher_weights=str(tmp_path / "cut.safetensors")), 2)


def test_a_network_of_ours_teaches_by_its_file_alone(tmp_path):
    torch.manual_seed(0)
    options = {"dims": (16, 16, 16, 16), "depths": (1, 1, 1, 1), "in_chans": 3, "num_classes": 2, "time_steps": 1}
    model = create_model("spiking_resnet18", **options).eval()
    theirs = ImageData(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    save_trained(Trained(model, theirs, ["left", "right"]), tmp_path / "ours.safetensors")
    training, image = Training(teacher_weights=str(tmp_path / "ours.safetensors")), torch.rand(2, 3, 16, 16)
    teacher = teacher_of(training, 2, ImageData(mean=(0.25, 0.5, 0.5), std=(0.25, 0.5, 0.5)))
    std = torch.tensor([0.25, 0.5, 0.5])[:, None, None]
    got = teacher((image - torch.tensor([0.25, 0.5, 0.5])[:, None, None]) / std)
    assert_close(got, model((image - 0.5) / 0.5))
    with pytest.raises(ValueError, match="ours.safetensors knows 2 classes and the data have 3"):
        teacher_of(training, 3)


def test_a_run_teaches_the_next(config, tmp_path):
    config["training"] |= {"epochs": 1}
    train(Recipe.from_dict(config), tmp_path / "first")
    config["training"] |= {"teacher_weights": str(tmp_path / "first"), "distillation": "soft", "mixup": 0.0}
    train(Recipe.from_dict(config), tmp_path / "second")
    assert (tmp_path / "second" / "summary.json").exists()


def test_a_teacher_that_looks_once(config, tmp_path):
    """Without augmentation its kept answers are those that it gives in every step, to half precision."""
    config["training"] |= {"epochs": 1, "mixup": 0.0}
    train(Recipe.from_dict(config), tmp_path / "first")
    config["data"] |= {"crop_padding": 0, "scale": [1.0, 1.0], "ratio": [1.0, 1.0]}
    config["training"] |= {"teacher_weights": str(tmp_path / "first"), "distillation_alpha": 1.0}
    losses, config["training"]["precision"] = [], "bf16-mixed"
    for view in ("augmented", "plain"):
        config["training"]["teacher_view"] = view
        train(Recipe.from_dict(config), tmp_path / view)
        with open(tmp_path / view / "metrics.csv", newline="") as file:
            losses.append(float(next(csv.DictReader(file))["train_loss"]))
    assert losses[0] > 0 and losses[1] == pytest.approx(losses[0], rel=1e-2)
    with pytest.raises(ValueError, match="has no answer to mixed ones"):
        config["training"] |= {"mixup": 0.2}
        train(Recipe.from_dict(config), tmp_path / "mixed")
