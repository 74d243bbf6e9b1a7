"""Every form of data, given to every function that measures, converts or calibrates, has the result of the plain tensor."""

import importlib
import random
import re
from types import SimpleNamespace

import timm
import torch
from pytest import fixture, mark, raises
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from spikeformers import audit, convert, event_driven, profile, shrink
from spikeformers.data import EventData, ImageData, TrainingSet
from spikeformers.evaluation import any_time
from spikeformers.measure import Batch, batches_of, following, record
from spikeformers.models.network import Configured
from spikeformers.profiling import early_exit_curve

LABELS = torch.tensor([0, 1, 2, 3])


class Samples:
    """What a data configuration is to `batches_of`."""

    def __init__(self, x):
        self.x = x

    def test_batches(self):
        return [(self.x, LABELS)]

    calibration_batches = test_batches


def named(loader):
    """Batches as a data set of Hugging Face gives them."""
    for x, labels in loader:
        yield {"x": x, "labels": labels}


FORMS = {
    "pair": lambda x: (x, LABELS),
    "list of a pair": lambda x: [(x, LABELS)],
    "batch of a loader": lambda x: [x, LABELS],
    "labels of Python": lambda x: (x, LABELS.tolist()),
    "labels of NumPy": lambda x: (x, LABELS.numpy()),
    "labels in uint8": lambda x: (x, LABELS.byte()),
    "loader": lambda x: DataLoader(TensorDataset(x, LABELS), batch_size=4),
    "mapping": lambda x: {"x": x, "labels": LABELS},
    "mapping and labels": lambda x: ({"x": x}, LABELS),
    "loader of mappings": lambda x: named(DataLoader(TensorDataset(x, LABELS), batch_size=4)),
    "generator": lambda x: (batch for batch in [(x, LABELS)]),
    "with an empty batch": lambda x: [(x[:0], LABELS[:0]), (x, LABELS)],
    "configuration": Samples,
}
UNLABELLED = {
    "tensor": lambda x: x,
    "list": lambda x: [x],
    "loader of tensors": lambda x: DataLoader(TensorDataset(x), batch_size=4),
    "mapping without labels": lambda x: {"x": x},
    "generator of tensors": lambda x: iter([x]),
    "pair without labels": lambda x: (x, None),
    "soft labels": lambda x: [(x, torch.eye(5)[:4])],
}


@fixture(scope="module")
def vit():
    torch.manual_seed(0)
    sizes = dict(img_size=(16, 12), patch_size=4, depth=1, embed_dim=24, num_heads=3, num_classes=5)
    return timm.create_model("vit_tiny_patch16_224", **sizes).eval()


@fixture(scope="module")
def converted_vit(vit):
    return convert(vit, torch.rand(4, 3, 16, 12), 2)


def profiled(nets, data):
    found = profile(nets.spiking, data, maps=1, merged=True)
    assert found.audit_merged
    return found.tally.to_dict(), found.audit, found.audit_merged, found.samples


def followed(nets, data):
    with following(nets.spiking) as recorder:
        for batch in batches_of(data, nets.spiking):
            recorder.run(*batch.args, **batch.kwargs)
    return recorder.tally().to_dict()


def converted(nets, data):
    found = convert(nets.vit, data, 2)
    return {place: threshold.tolist() for place, threshold in found.thresholds[2].items()}


def driven(nets, data):
    return event_driven(nets.spiking, data).choices


def driven_over_time(nets, data):
    return event_driven(nets.converted, data).limits


def over_time(nets, data):
    found = any_time(nets.converted, nets.vit, data)
    return found.tally.to_dict(), found.agreement.to_dict(), found.samples


FUNCTIONS = {
    "profile": profiled,
    "audit": lambda nets, data: audit(nets.spiking, data),
    "record": lambda nets, data: record(nets.spiking, data).tally().to_dict(),
    "following": followed,
    "convert": converted,
    "event_driven": driven,
    "event_driven of a converted network": driven_over_time,
    "any_time": over_time,
}


@fixture
def nets(spikingformer, vit, converted_vit, monkeypatch):
    """Networks; of calibrations of speed, which no two runs measure alike, what they are done on."""
    module = importlib.import_module(
        "spikeformers.transforms.event_driven"
    )  # beside which lies a function of that name
    monkeypatch.setattr(module.EventDriven, "builder", lambda self, x: None)
    monkeypatch.setattr(module, "calibrate", lambda build, x: x.tolist())
    seen = lambda self, *args, **kwargs: self.limits.update(x=Batch(args, kwargs).x.tolist())  # noqa: E731
    monkeypatch.setattr(module.EventDrivenConverted, "calibrate", seen)
    return SimpleNamespace(spiking=spikingformer(depth=1), vit=vit, converted=converted_vit)


@mark.parametrize("function", FUNCTIONS)
def test_every_form_has_the_result_of_the_tensor(function, nets, images):
    wanted = FUNCTIONS[function](nets, images)
    for name, form in {**FORMS, **UNLABELLED}.items():
        assert FUNCTIONS[function](nets, form(images)) == wanted, name


def test_accuracy_is_that_of_the_labels(nets, spikingformer, images):
    early = shrink(spikingformer(), (2, 1), early_classifiers=True)
    right = profile(nets.spiking, (images, LABELS), merged=False).answers
    over = any_time(nets.converted, nets.vit, (images, LABELS)).answers
    curve = early_exit_curve(early, (images, LABELS), (0.5,))
    assert right.labelled == over.labelled == 4
    for name, form in FORMS.items():
        assert profile(nets.spiking, form(images), maps=0, merged=False).answers == right, name
    for name in ("loader of mappings", "configuration"):
        assert any_time(nets.converted, nets.vit, FORMS[name](images)).answers == over, name
        assert early_exit_curve(early, FORMS[name](images), (0.5,)) == curve, name
    for name, form in UNLABELLED.items():
        assert profile(nets.spiking, form(images), maps=0, merged=False).answers is None, name
        with raises(ValueError, match="needs labels"):
            early_exit_curve(early, form(images), (0.5,))
    assert any_time(nets.converted, nets.vit, images).rows()[-1]["accuracy"] is None


def shapes(data, model=None):
    """Of the batches, and their labels."""
    return [
        (list(batch.x.shape), batch.labels if batch.labels is None else batch.labels.tolist())
        for batch in batches_of(data, model)
    ]


def test_two_tensors_of_equally_many_axes_are_two_batches():
    x = torch.rand(2, 3, 8, 8)
    assert shapes((x, x)) == shapes([x, x]) == [([2, 3, 8, 8], None)] * 2
    assert shapes([x, x[:1]]) == [([2, 3, 8, 8], None), ([1, 3, 8, 8], None)]
    assert shapes([{"x": x}, {"x": x}]) == [([2, 3, 8, 8], None)] * 2


def test_a_vector_of_whole_numbers_is_labels():
    x, tokens = torch.rand(2, 3, 8, 8), torch.ones(2, 7, dtype=torch.long)
    assert shapes((x, torch.tensor([1, 0]))) == [([2, 3, 8, 8], [1, 0])]
    assert shapes((tokens, torch.tensor([1, 0]))) == [([2, 7], [1, 0])]
    assert shapes((x[None].expand(5, -1, -1, -1, -1), torch.tensor([1, -100]))) == [([5, 2, 3, 8, 8], [1, -100])]
    assert shapes({"input_ids": tokens, "label": torch.tensor([1, 0])}) == [([2, 7], [1, 0])]


def test_labels_come_back_as_they_are_wanted():
    x = torch.rand(2, 4)
    (batch,) = batches_of((x, torch.tensor([0.0, 1.0])))
    with raises(ValueError, match=r"labels are torch.float32.*labels.long\(\)"):
        _ = batch.labels
    assert batch.x is x  # whoever needs no labels is not bothered
    (batch,) = batches_of((torch.rand(2, 3, 1, 8, 8), torch.tensor([0, 1])))
    with raises(ValueError, match="2 labels do not fit 3 samples.*time first"):
        _ = batch.labels
    (batch,) = batches_of([(x, torch.eye(2))])
    assert batch.labels is None and torch.equal(batch.targets, torch.eye(2))


def test_images_of_different_sizes_are_batches_of_one():
    class Detector(Configured, nn.Identity):
        any_size = True

    detector = Detector()
    small, large = torch.rand(3, 4, 4), torch.rand(3, 8, 8)
    wanted = [([1, 3, 4, 4], None), ([1, 3, 8, 8], None)]
    targets = [{"boxes": torch.rand(1, 4)}] * 2
    assert shapes([small, large], detector) == shapes([[small, large]], detector) == wanted
    assert shapes(([small, large], targets)) == shapes([([small, large], targets)]) == wanted
    assert shapes(small, detector) == wanted[:1]


MISTAKES = {
    "None": (None, "not None; give a tensor"),
    "text": ("images", "not str"),
    "number": (3, "not int"),
    "network": (nn.Identity(), "not Identity"),
    "configuration's class": (ImageData, "not type"),
    "array": (torch.rand(2, 3).numpy(), r"ndarray; make it a tensor by torch.as_tensor\(x\)"),
    "arrays": ([torch.rand(2, 3).numpy()], r"make it a tensor by torch.as_tensor\(x\)"),
    "texts": (["cat", "dog"], "expected batches of inputs, not str"),
    "no batch": ([], "no inputs: list without samples"),
    "empty batch": (torch.rand(0, 3, 8, 8), "no inputs: Tensor"),
    "spent generator": (iter([]), "a generator serves only once"),
    "vector": (torch.rand(3), r"no axis for the samples.*x\[None\]"),
    "samples": (TensorDataset(torch.rand(2, 3, 8, 8)), r"single samples; give batches: DataLoader"),
    "mapping without tensors": ({"train": [1]}, "a mapping of train"),
    "empty mapping": ({}, "a mapping of nothing"),
    "mapping of labels alone": ({"labels": torch.tensor([1])}, "a mapping of labels"),
    "column of labels": (
        (torch.rand(2, 3, 8, 8), torch.ones(2, 1).long()),
        r"neither .x, labels. nor two batches.*y.flatten\(\)",
    ),
    "soft labels": ((torch.rand(2, 3, 8, 8), torch.rand(2, 5)), r"y.argmax\(1\)"),
    "tokens and mask": ([(torch.ones(2, 7).long(),) * 2], "tokens and their mask.*attention_mask"),
}


@mark.parametrize("name", MISTAKES)
def test_mistakes_are_named(name):
    data, message = MISTAKES[name]
    with raises(ValueError, match=message):
        list(batches_of(data))


@mark.parametrize("function", FUNCTIONS)
def test_one_image_without_batch_axis(function, nets, images):
    with raises(
        ValueError,
        match=re.escape("[3, 16, 12] is one image, and networks take batches [B, C, H, W]; give it as x[None]"),
    ):
        FUNCTIONS[function](nets, images[0])


@mark.parametrize("function", FUNCTIONS)
def test_functions_refuse_what_is_nothing(function, nets, images):
    for data, message in (
        ([], "there are no inputs"),
        ("images", "expected inputs"),
        ({"pixels": images}, "none called pixels; it takes x"),
    ):
        with raises(ValueError, match=message):
            FUNCTIONS[function](nets, data)


def test_a_generator_is_gone_through_once(nets, images):
    batches = iter([images[:2], images[2:]])
    assert profile(nets.spiking, batches, merged=False).samples == 4
    with raises(ValueError, match="serves only once"):
        profile(nets.spiking, batches, merged=False)


class Masked(nn.Module):
    """Tokens and their mask by name, as networks of Hugging Face take them."""

    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(11, 8), nn.Linear(8, 5)

    def forward(self, input_ids, attention_mask=None):
        x = self.embedding(input_ids)
        if attention_mask is not None:
            x = x * attention_mask[..., None]
        return {"logits": self.head(x.mean(1))}


def test_masks_by_name_are_no_data(images):
    tokens = torch.randint(11, (4, 6), generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    batch = {"attention_mask": torch.ones(4, 6), "input_ids": tokens, "labels": LABELS}
    found = profile(Masked(), batch, merged=False)
    assert found.samples == 4 and found.input_shape == (6,) and found.answers.labelled == 4
    product = next(
        operation for operation in record(Masked(), batch).operations.values() if operation.name == "scaling"
    )
    assert sorted(operand.role for operand in product.operands) == ["data", "weight"]


def test_data_configurations(nets):
    data = ImageData(name="digits", img_size=16, batch_size=128, holdout=100)
    test = [*data.test_batches()]
    assert shapes(data)[0] == ([128, 3, 16, 16], test[0][1].tolist())
    assert sum(len(x) for x, _ in test) == len(data.source(training=False))
    calibration = torch.cat([batch.x for batch in batches_of(data, calibration=True)])
    again = torch.cat([x for x, _ in data.calibration_batches()])
    assert len(calibration) == 256 and torch.equal(calibration, again)
    training, transform = TrainingSet(data, seed=0), data.transform(training=False)
    places = random.Random(0).sample(range(len(training)), 256)
    assert torch.equal(calibration[:8], torch.stack([transform(training.read(place)[0]) for place in places[:8]]))
    with raises(ValueError, match="data.root"):
        next(batches_of(EventData(root="nowhere")))
