"""Augmentation of event frames: the same for all frames of a sample, counts stay counts, draws follow torch's seed."""

from collections import Counter

import pytest
import torch
from torch.testing import assert_close

from spikeformers.data.events.augment import EventAugment

T, H, W = 4, 17, 23


def counts(seed=0):
    return (
        torch.randint(0, 9, (1, 2, H, W), generator=torch.Generator().manual_seed(seed)).float().expand(T, -1, -1, -1)
    )


def draw(augment, frames, seed):
    torch.manual_seed(seed)
    return augment(frames)


SWITCHED_ON = [{"hflip": 0.5}, {"roll": 5}, {"rotate": 30.0}, {"shear": 0.3}, {"cutout": 6}]
ALL = {key: value for switch in SWITCHED_ON for key, value in switch.items()}


@pytest.mark.parametrize("switches", [*SWITCHED_ON, ALL, {**ALL, "one": True}], ids=str)
def test_all_frames_of_a_sample_are_treated_alike(switches):
    frames, augment = counts(), EventAugment(**switches)
    results = [draw(augment, frames, seed) for seed in range(20)]
    for result in results:
        assert result.shape == frames.shape and result.dtype == torch.float32
        assert_close(result, result[:1].expand_as(result), rtol=0, atol=0)
        assert set(result.unique().tolist()) <= set(range(9))
    assert any(not torch.equal(result, frames) for result in results)
    assert torch.equal(draw(augment, frames, 3), results[3])
    assert torch.equal(frames, counts()), "the input was changed"


def test_nothing_is_switched_on_at_first():
    assert torch.equal(EventAugment()(counts()), counts())
    assert torch.equal(EventAugment(one=True)(counts()), counts())


def test_flips_mirror_left_and_right():
    assert torch.equal(EventAugment(hflip=1)(counts()), counts().flip(3))
    flipped = sum(not torch.equal(draw(EventAugment(hflip=0.5), counts(), seed), counts()) for seed in range(100))
    assert 35 <= flipped <= 65


def test_rolls_shift_by_whole_pixels_and_do_not_wrap():
    frames, shifts = torch.zeros(1, 1, 9, 9), set()
    frames[..., 4, 4] = 3
    for seed in range(200):
        result = draw(EventAugment(roll=2), frames, seed)
        assert result.sum() == 3
        shifts.add(tuple((result[0, 0].nonzero()[0] - 4).tolist()))
    assert shifts == {(y, x) for y in range(-2, 3) for x in range(-2, 3)}
    corner = torch.zeros(1, 1, 9, 9)
    corner[..., 0, 0] = 1
    assert min(draw(EventAugment(roll=2), corner, seed).sum() for seed in range(50)) == 0


def test_shear_shifts_rows_in_proportion_to_their_distance():
    line = torch.zeros(1, 1, 21, 21)
    line[..., 10] = 1
    widest = 0
    for seed in range(50):
        columns = draw(EventAugment(shear=0.5), line, seed)[0, 0].argmax(1)
        assert abs(int(columns[10]) - 10) <= 1
        widest = max(widest, abs(int(columns[0]) - 10))
    assert widest == 5  # 10 rows from the centre


def test_rotation_stays_below_its_limit():
    bar = torch.zeros(1, 1, 41, 41)
    bar[..., 20, 20:] = 1
    heights = [int(draw(EventAugment(rotate=30), bar, seed)[0, 0, :, 35].argmax()) - 20 for seed in range(50)]
    assert max(map(abs, heights)) <= 9 and max(heights) > 6 and min(heights) < -6  # 15 * tan(30) = 8.7


def test_cutout_empties_one_square():
    ones, sizes = torch.ones(T, 2, 30, 40), []
    for seed in range(50):
        gone = draw(EventAugment(cutout=6), ones, seed)[0, 0] == 0
        rows, columns = gone.any(1).sum().item(), gone.any(0).sum().item()
        assert gone.sum() == rows * columns and 3 <= rows <= 6 and 3 <= columns <= 6
        sizes.append(rows * columns)
    assert max(sizes) == 36


def test_one_of_five_is_drawn_evenly(monkeypatch):
    def affine(frames, angle, translate, shear, **how):
        done.update({"rotate": angle != 0, "roll": translate != [0, 0], "shear": shear != [0, 0]})
        return frames

    def cut(self, frames):
        done["cutout"] = True
        return frames

    monkeypatch.setattr("spikeformers.data.events.augment.functional.affine", affine)
    monkeypatch.setattr(EventAugment, "_cut", cut)
    recipe, counted = EventAugment(roll=50, rotate=30, shear=0.3, cutout=8, one=True), Counter()
    for seed in range(500):
        done = {}
        draw(recipe, counts(), seed)
        counted[tuple(name for name, happened in done.items() if happened)] += 1
    assert set(counted) == {(), ("rotate",), ("roll",), ("shear",), ("cutout",)}
    assert all(70 <= count <= 130 for count in counted.values())
    done = {}
    draw(EventAugment(roll=50, rotate=30, shear=0.3, cutout=8), counts(), 0)
    assert done == {"rotate": True, "roll": True, "shear": True, "cutout": True}
