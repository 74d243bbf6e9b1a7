"""The order of samples, and how processes share them."""

import pytest

from spikeformers.data.order import Shared, Shuffled


def test_the_order_changes_with_epoch_and_seed_and_repeats():
    def order(seed, epoch):
        sampler = Shuffled(100, 10, seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(1, 3) == order(1, 3)
    assert {epoch for _, epoch in order(1, 3)} == {3}
    orders = [[index for index, _ in order(*key)] for key in ((1, 3), (1, 4), (2, 3))]
    assert all(sorted(indices) == list(range(100)) for indices in orders)
    assert orders[0] != orders[1] and orders[0] != orders[2]


@pytest.mark.parametrize("world", [2, 4])
def test_processes_share_the_batches_of_one(world):
    one = list(Shuffled(103, 20, seed=0))
    shares = [list(Shuffled(103, 20, 0, rank, world)) for rank in range(world)]
    assert len(one) == len(Shuffled(103, 20, seed=0)) == 100
    local = 20 // world
    for step in range(5):
        joint = [key for share in shares for key in share[step * local : (step + 1) * local]]
        assert sorted(joint) == sorted(one[step * 20 : (step + 1) * 20])


@pytest.mark.parametrize(("size", "world"), [(10, 1), (10, 3), (2, 4), (12, 4)])
def test_every_test_image_counts_once(size, world):
    shares = [list(Shared(size, rank, world)) for rank in range(world)]
    assert {len(share) for share in shares} == {len(Shared(size, 0, world))}
    keys = [key for share in shares for key in share]
    assert sorted(key for key in keys if key >= 0) == list(range(size))
    assert {~key for key in keys if key < 0} <= {size - 1}


def test_repeated_augmentation_shows_fewer_images_more_often():
    plain, repeated = (Shuffled(20, 6, seed=1, repeats=repeats, epoch=3) for repeats in (1, 3))
    assert len(list(repeated)) == len(list(plain)) == 18
    keys = list(repeated)
    assert [draw for _, draw in keys] == [9, 10, 11] * 6
    assert [index for index, _ in keys[::3]] == [index for index, _ in keys[1::3]] == [index for index, _ in keys[2::3]]
    assert [index for index, _ in keys[::3]] == [index for index, _ in plain][:6]
    shares = [list(Shuffled(20, 6, seed=1, repeats=3, epoch=3, rank=rank, world=3)) for rank in range(3)]
    assert [share[0][0] for share in shares] == [keys[0][0]] * 3  # the copies meet in one step, on different processes


def test_shards_are_shuffled_and_then_what_is_in_a_few_of_them():
    sampler = Shuffled(200, 10, seed=1, shards=[10] * 20)
    order = sampler.order().tolist()
    assert sorted(order) == list(range(200)) and order != list(range(200))
    assert len({index // 10 for index in order[:80]}) == len({index // 10 for index in order[80:160]}) == 8
    assert [index // 10 for index in order[:10]] != [order[0] // 10] * 10
    sampler.set_epoch(1)
    assert sampler.order().tolist() != order
