"""Numbers for people."""

import pytest

from spikeformers.profiling.page.words import count, count_unit, energy, energy_unit, percent, run_name


@pytest.mark.parametrize(
    "text, expected",
    [
        (count(1.24e9), "1.24 G"),
        (count(8.1e6), "8.1 M"),
        (count(999_600), "1 M"),
        (count(512), "512"),
        (count(None), "–"),
        (energy(0.0452), "45.2 µJ"),
        (energy(8.1e-7), "0.81 nJ"),
        (energy(0), "0 µJ"),
        (percent(0.1294), "12.9 %"),
        (percent(0.00034), "0.034 %"),
        (percent(1e-9), "< 0.001 %"),
    ],
)
def test_numbers_for_people(text, expected):
    assert text == expected


def test_a_column_has_the_unit_of_its_largest_number():
    unit = energy_unit([0.0000452, None], [0.0169])
    assert unit.name == "µJ" and unit.text(0.0169) == "16.9" and unit.text(0.0000452) == "0.0452"
    assert unit.text(1e-9) == "< 0.001" and unit.text(0) == "0" and unit.text(None) == "–"
    assert energy_unit([7.46]).name == "mJ" and energy_unit([8e-7]).name == "nJ"
    assert [count_unit([largest]).name for largest in (999_600, 2e9, 512, 0)] == ["M", "G", "", ""]


@pytest.mark.parametrize(
    "checkpoint, expected",
    [
        ("/home/me/runs/digits/1/best.ckpt", "digits/1, T = 2"),
        ("runs/digits/last.ckpt", "digits, last, T = 2"),
        ("../weights/my_net.safetensors", "my_net, T = 2"),
        ("best.ckpt", "best, T = 2"),
        ("spiking_resnet_edge", "spiking_resnet_edge, T = 2"),
    ],
)
def test_a_run_is_called_by_its_name(checkpoint, expected):
    assert run_name(f"{checkpoint}, T = 2", checkpoint) == expected


def test_a_title_of_ones_own_stays():
    assert run_name("my network", "runs/digits/1/best.ckpt") == run_name("my network", None) == "my network"
