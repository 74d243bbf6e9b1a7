import pytest

from spikeformers.evaluation.colours import colours
from spikeformers.evaluation.palettes import ADE20K, CAMVID, palette


def test_publishers_colours_are_used_where_names_are_theirs():
    names = [
        "Sky",
        "Building",
        "Column_Pole",
        "Road",
        "Sidewalk",
        "Tree",
        "SignSymbol",
        "Fence",
        "Car",
        "Pedestrian",
        "Bicyclist",
    ]
    found = palette(names)
    assert found[0] == (128, 128, 128) and found[3] == (128, 64, 128) and found[10] == (0, 128, 192)
    assert len(found) == 256 and len(set(CAMVID.values())) == 32  # the 31 classes and the void

    ade = ["wall", "building, edifice", "sky", *(f"thing {n}" for n in range(147))]
    assert (
        len(ADE20K) == 150
        and palette(ade)[:3] == ((120, 120, 120), (180, 120, 120), (6, 230, 230))
        and palette(ade)[149] == (92, 0, 255)
    )


@pytest.mark.parametrize(
    "names", [None, [], ["Sky", "unicorn"], ["sky"] * 0 + ["cat", "dog"], [str(n) for n in range(150)]]
)
def test_others_get_colours_that_differ(names):
    assert palette(names) == colours(256)
