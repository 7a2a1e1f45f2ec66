from __future__ import annotations

from collections import Counter

import pytest

from clip_train.data.batching import Choice, DrawnBatching, EvenBatching
from clip_train.data.loader import Share

LENGTHS, SIZES = Choice((64, 128, 256), (1.0, 2.0, 1.0)), (32, 16, 8)


def drawn(seed: int = 0, **more: object) -> DrawnBatching:
    return DrawnBatching(seed, LENGTHS, SIZES, Choice((16, 32), (3.0, 1.0)), **more)  # type: ignore[arg-type]


def test_batches_of_one_size_stand_in_a_row() -> None:
    even = EvenBatching(6, accumulated=2)
    assert [even.piece(number)[:2] for number in range(3)] == [(0, 6), (6, 6), (12, 6)]
    assert (even.most, even.samples(3), even.passed(3)) == (12, 36, 36)
    assert [even.steps(amount) for amount in (0, 1, 12, 13)] == [0, 1, 1, 2]
    assert even.piece(5).form is None


@pytest.mark.parametrize("accumulated", [1, 2])
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_every_slot_of_the_line_belongs_to_one_process_and_one_step(accumulated: int, ranks: int) -> None:
    batching = drawn(accumulated=accumulated)
    shares = [Share(batching, rank, ranks) for rank in range(ranks)]
    for step in range(40):
        numbers = range(step * accumulated, (step + 1) * accumulated)
        slots = [slot for number in numbers for share in shares for slot in share.slots(number)]
        assert slots == list(range(batching.samples(step), batching.samples(step + 1)))
        # All micro-batches of a step, of all processes, have its form, so that their features fit together.
        assert len({share.form(number) for number in numbers for share in shares}) == 1
        assert len({len(share.slots(number)) for number in numbers for share in shares}) == 1
    most = max(len(share.slots(number)) for number in range(40) for share in shares)
    assert most == shares[0].most == 32 // accumulated // ranks


def test_a_step_follows_from_the_seed_and_its_number_alone() -> None:
    one, other = drawn(), drawn()
    forward = [one.piece(number) for number in range(200)]
    assert [other.piece(number) for number in reversed(range(200))] == forward[::-1]
    assert [drawn(1).piece(number) for number in range(200)] != forward
    # Going on elsewhere, or with other micro-batches, changes no step.
    halves = drawn(accumulated=2)
    assert [halves.piece(2 * number).form for number in range(200)] == [piece.form for piece in forward]
    assert [halves.samples(steps) for steps in range(200)] == [one.samples(steps) for steps in range(200)]


def test_lengths_and_patch_sizes_come_as_often_as_their_weights_say() -> None:
    batching = drawn()
    forms = [batching.piece(number).form for number in range(4000)]
    lengths = Counter(form.length for form in forms if form)
    sides = Counter(form.patch_size for form in forms if form)
    # Four standard deviations of a fair draw.
    assert abs(lengths[128] - 2000) < 130
    assert abs(lengths[64] - 1000) < 110
    assert abs(sides[16] - 3000) < 110
    never = DrawnBatching(0, Choice((64, 128), (0.0, 1.0)), (8, 8), Choice((16, 32), (1.0, 0.0)))
    assert {never.piece(number).form for number in range(300)} == {(16, 128)}


def test_epochs_are_counted_in_samples_or_in_tokens() -> None:
    samples, tokens = drawn(), drawn(in_tokens=True)
    for batching in (samples, tokens):
        for amount in (1, 1000, 50_000):
            steps = batching.steps(amount)
            assert batching.passed(steps - 1) < amount <= batching.passed(steps)
    # Every batch has 2048 tokens here, whatever the length.
    assert [tokens.passed(steps) for steps in range(5)] == [2048 * steps for steps in range(5)]
    assert samples.passed(7) == samples.samples(7) == tokens.samples(7)
