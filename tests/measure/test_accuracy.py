"""Accuracy by hand, added up over batches and processes."""

import json

import pytest
import torch
from torch.nn import functional as F

from spikeformers.measure import Accuracy, answers_so_far

# three steps, two samples with labels 1 and 0 and one without, seven classes
LABELS = torch.tensor([1, 0, -1])


@pytest.fixture
def answers():
    made = torch.zeros(3, 3, 7)
    made[:, 0] = -torch.arange(7.0)
    made[0, 0, 2], made[1, 0, 1], made[2, 0, 1] = 1.0, 1.0, 3.0  # wrong, right, right
    made[:, 1] = torch.arange(7.0)  # the last of all: not among five
    return made


def test_by_hand(answers):
    found = Accuracy()
    found.update(answers, LABELS)
    assert (found.samples, found.labelled, found.time_steps, found.classes) == (3, 2, 3, 7)
    assert found.per_step == [0.0, 0.5, 0.5] and found.accuracy == 0.5
    assert found.top5 == 0.5 and found.top5_per_step == [0.5, 0.5, 0.5]
    assert found.per_class == [0.0, 1.0, None, None, None, None, None]
    wrong = int(answers[-1, 1].argmax())
    assert found.confusion[1, 1] == 1 and found.confusion[0, wrong] == 1 and found.confusion.sum() == 2
    want = F.cross_entropy(answers[-1, :2].double(), LABELS[:2])
    assert found.loss == pytest.approx(float(want), rel=1e-6)


def test_batches_and_processes_add_up(answers):
    whole, parts = Accuracy(), [Accuracy(3, 7), Accuracy(3, 7)]
    whole.update(answers, LABELS)
    parts[0].update(answers[:, :1], LABELS[:1])
    parts[1].update(answers[:, 1:], LABELS[1:])
    assert parts[0] + parts[1] == whole != parts[0] and Accuracy() + whole == whole == whole + Accuracy()
    sums = parts[0].to_tensor() + parts[1].to_tensor()  # as all_reduce does
    assert Accuracy.from_tensor(sums, 3, 7) == whole
    assert Accuracy.from_dict(json.loads(json.dumps(whole.to_dict()))) == whole


def test_answers_are_means_so_far():
    logits = torch.randn(5, 2, 3)
    so_far = answers_so_far(logits)
    assert torch.equal(so_far[-1], logits.mean(0))
    torch.testing.assert_close(so_far[1], logits[:2].mean(0))


def test_nothing_is_known_of_nothing():
    found = Accuracy()
    assert found.accuracy is None and found.loss is None and found.per_step is None and found.samples == 0
    found.update(torch.zeros(2, 3), torch.tensor([-1, -100]))
    assert found.accuracy is None and found.samples == 2


def test_what_does_not_fit_is_refused(answers):
    found = Accuracy()
    for labels in (torch.tensor([1, 2]), torch.tensor([1, 2, 7])):
        with pytest.raises(ValueError, match="do not fit 3 answers of 7 classes"):
            found.update(answers, labels)
    found.update(answers, LABELS)
    with pytest.raises(ValueError, match="after 2 time steps"):
        found.update(answers[:2], LABELS)
    with pytest.raises(ValueError, match="cannot be added up"):
        found + Accuracy(3, 4)
