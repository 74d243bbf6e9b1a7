"""Numbers for people."""

import pytest

from spikeformers.profiling.page.words import count, energy, millijoules, percent


@pytest.mark.parametrize(
    "text, expected",
    [
        (count(1.24e9), "1.24 G"),
        (count(8.1e6), "8.1 M"),
        (count(999_600), "1 M"),
        (count(512), "512"),
        (count(None), "–"),
        (millijoules(0.113), "0.113 mJ"),
        (millijoules(7.463502602), "7.46 mJ"),
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
