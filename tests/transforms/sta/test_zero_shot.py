"""CLIP-like networks as classifiers by the names of classes."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from spikeformers.transforms.sta import convert, load_source, readable, with_texts
from spikeformers.transforms.sta.sources import NetworkSource

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module", params=["CLIP", "Siglip"])
def pair(request, tmp_path_factory, save_dual_encoder):
    folder = tmp_path_factory.mktemp(request.param)
    return folder, save_dual_encoder(folder, request.param)


def test_answers_are_those_of_the_network_with_images_and_texts(pair):
    folder, network = pair
    classes, images = ["cat", "dog", "flying fish"], torch.randn(3, 3, 16, 16)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    texts = tokenizer(
        [f"a photo of a {name} ." for name in classes], padding="max_length", max_length=8, return_tensors="pt"
    )
    with torch.no_grad():
        wanted = network(texts["input_ids"], images, texts["attention_mask"]).logits_per_image
        classifier = with_texts(load_source(f"transformers:{folder}"), classes, ["a photo of a {} ."])
        assert_close(classifier(images), wanted)
    assert classifier.num_classes == 3 and not [name for name, _ in classifier.named_parameters() if "text" in name]


def test_several_prompts_are_averaged(pair):
    folder, _ = pair

    def weights(*prompts):
        return with_texts(load_source(f"transformers:{folder}"), ["cat", "truck"], prompts).head.weight

    first, second, both = (
        F.normalize(weights(*prompts), dim=1) for prompts in (["a {}"], ["sketch of {}"], ["a {}", "sketch of {}"])
    )
    assert_close(both, F.normalize(first + second, dim=1))
    assert not torch.allclose(first, second, atol=1e-3)


def test_the_classifier_is_converted(pair):
    folder, _ = pair
    images = torch.randn(4, 3, 16, 16)
    classifier = with_texts(load_source(f"transformers:{folder}"), ["cat", "dog", "truck"])
    for spiking in ("hybrid", "full"):
        converted = convert(classifier, images, 64, spiking=spiking)
        with torch.no_grad():
            wanted, steps = classifier(images), list(converted.steps(images))
        errors = [float((answer - wanted).norm() / (wanted - wanted.mean()).norm()) for answer in (steps[7], steps[63])]
        assert errors[1] < errors[0] / 2 and errors[1] < 0.1


def test_it_is_made_again_without_texts(pair):
    folder, _ = pair
    classifier = with_texts(load_source(f"transformers:{folder}"), ["cat", "dog"])
    again = NetworkSource(**classifier.source.to_dict()).create()
    again.load_state_dict(classifier.state_dict())
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(again(images), classifier(images))


def test_images_are_prepared_as_the_network_wants_them(pair):
    assert load_source(f"transformers:{pair[0]}").pretrained_cfg == {
        "input_size": (3, 16, 16),
        "mean": (0.1, 0.2, 0.3),
        "std": tuple(transformers.CLIPImageProcessor().image_std),
        "interpolation": "bilinear",
        "crop_pct": 0.8,
    }


def test_names_of_folders_become_words():
    assert readable(["n01440764", "flying_fish", "cat"]) == ["tench", "flying fish", "cat"]


def test_what_is_wrong_is_said(pair, tmp_path):
    folder, network = pair
    source = load_source(f"transformers:{folder}")
    for classes, prompts, words in ((["cat"], ["a cat"], r"'a cat' has no \{\}"), ([], ["{}"], "at least one class")):
        with pytest.raises(ValueError, match=words):
            with_texts(source, classes, prompts)
    network.save_pretrained(tmp_path / "bare")
    with pytest.raises(ValueError, match="tokenizer of transformers:.* could not be found"):
        with_texts(load_source(f"transformers:{tmp_path / 'bare'}"), ["cat"])
    with pytest.raises(ValueError, match="there is no folder /no/such"):
        load_source("transformers:/no/such")
