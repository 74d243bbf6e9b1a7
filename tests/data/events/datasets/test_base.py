"""All event data sets: what is said where they are missing, and how one is added."""

import sys
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from spikeformers.data import TestSet, TrainingSet, data_names
from spikeformers.data.events import EventData, datasets
from spikeformers.data.events.datasets import DATASETS


@pytest.mark.parametrize("name", list(DATASETS))
def test_missing_data_say_where_to_put_them(tmp_path, name):
    with pytest.raises(ValueError, match="set data.root") as error:
        EventData(name, str(tmp_path / "nothing")).source(training=True)
    assert str(tmp_path / "nothing") in str(error.value)


@pytest.mark.parametrize(
    ("name", "hint"), [("dvs128_gesture", "form"), ("ncaltech101", "66201824"), ("har_dvs", "HARDVS")]
)
def test_what_must_be_fetched_by_hand_is_said(tmp_path, name, hint):
    with pytest.raises(ValueError, match=hint):
        EventData(name, str(tmp_path), download=True).source(training=True)


OF_A_TEST = """
from ._base import EventDataset, register_dataset
from ._layout import by_class


@register_dataset("of_a_test")
class OfATest(EventDataset):
    sensor = (20, 12)
    classes = ("left", "right")
    layout = "it lies in {root}"

    def recordings(self, training):
        return by_class(self.there("train" if training else "val"), self.classes, (".npz",))
"""


def test_a_file_more_is_a_data_set_more(tmp_path, made, monkeypatch):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "of_a_test.py").write_text(OF_A_TEST)
    known = dict(DATASETS)
    monkeypatch.setattr(datasets, "__path__", [*datasets.__path__, str(tmp_path / "code")])
    try:
        datasets._import_all()
        assert set(DATASETS) - set(known) == {"of_a_test"}
        data = EventData("nmnist", made.own(tmp_path / "data"), time_steps=3)
        data.name = "of_a_test"  # what names may be given is settled when the package is imported
        train, test = TrainingSet(data, seed=0), TestSet(data)
        assert (
            data.shape == test[4][0].shape == (3, 2, 12, 20) and test[4][1] == 1 and train.classes == ["left", "right"]
        )
        data.download = True
        with pytest.raises(ValueError, match="data.download cannot fetch of_a_test; it lies in .*data"):
            data.source(training=True)
    finally:
        DATASETS.pop("of_a_test", None)
        sys.modules.pop("spikeformers.data.events.datasets.of_a_test", None)


def test_the_options_know_every_data_set():
    assert get_args(get_type_hints(EventData)["name"]) == tuple(DATASETS) and set(DATASETS) < set(data_names())
    files = {path.stem for path in Path(datasets.__file__).parent.glob("[!_]*.py")}
    assert {kind.__module__.rpartition(".")[2] for kind in DATASETS.values()} == files


@pytest.mark.parametrize("name", [name for name in DATASETS if name != "events"])
def test_a_data_set_says_where_it_comes_from(name):
    told = sys.modules[DATASETS[name].__module__].__doc__
    assert "Source: " in told and "licence" in told.lower()
