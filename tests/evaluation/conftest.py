"""Samples that need no files."""

from types import SimpleNamespace

import pytest

from spikeformers.evaluation import detection, segmentation


class Fakes:
    """Stands in for a TestSet: batches of what `evaluate_any` gets."""

    def __init__(self, task, batches, classes=("a", "b", "c", "d")):
        self.data, self.batches, self.classes = SimpleNamespace(task=task), batches, list(classes)

    def __iter__(self):
        return iter(self.batches)


@pytest.fixture(autouse=True)
def loader_of_fakes(monkeypatch):
    for module in (detection, segmentation):
        real = module.test_loader
        monkeypatch.setattr(
            module, "test_loader", lambda samples, real=real: samples if isinstance(samples, Fakes) else real(samples)
        )


class Named(Fakes):
    """Batches of samples that have names."""

    def where(self, index):
        return f"{index}.png"
