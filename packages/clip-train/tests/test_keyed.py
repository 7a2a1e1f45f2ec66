from __future__ import annotations

import itertools

from clip_train.keyed import mix


def test_the_numbers_are_splitmix64() -> None:
    # The generator's published sequence for seed 0 is the finaliser of 1, 2 and 3 times the golden ratio.
    golden = 0x9E3779B97F4A7C15
    assert mix(0) == 0xE220A8397B1DCDAF
    assert mix(golden) == 0x6E789E6AA1B965F4
    assert mix(2 * golden % 2**64) == 0x06C45D188009454F


def test_every_word_and_their_order_matter() -> None:
    made = {mix(*words) for words in itertools.product(range(6), repeat=3)}
    assert len(made) == 6**3
    assert mix(1, 2) != mix(2, 1)
    assert mix(1) != mix(1, 0)


def test_bits_are_balanced() -> None:
    counts = [sum(mix(7, n) >> bit & 1 for n in range(4000)) for bit in range(64)]
    # Five standard deviations of a fair coin.
    assert all(abs(count - 2000) < 5 * 4000**0.5 / 2 for count in counts)
