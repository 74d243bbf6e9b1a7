"""Which configuration a name stands for."""

from spikeformers.data import EventData, ImageData, data_type


def test_the_name_decides_between_images_and_events():
    assert data_type("nmnist") is data_type("events") is EventData
    assert data_type("folder") is data_type(None) is data_type("unknown") is ImageData
