"""What the gallery chooses: the surest mistakes first, others and successes spread evenly, the same each time."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from clip_eval.gallery import choose, pictured, save_gallery
from clip_eval.tasks.result import Answer, SampleResult
from clip_eval.wds import open_dataset


def sample(index: int, right: bool, lead: float = 0.1) -> SampleResult:
    answers = (Answer("first", 0.5, right), Answer("second", 0.5 - lead, False))
    return SampleResult(index, f"s{index:07d}", ("first" if right else "other",), right, answers)


def test_the_surest_mistakes_come_first() -> None:
    samples = [sample(n, right=n % 2 == 0, lead=(n * 7 % 50) / 100) for n in range(100)]
    choice = choose(samples, right=5, wrong=6, confident=4)
    leads = [one.answers[0].similarity - one.answers[1].similarity for one in choice.confident]
    everything = sorted((n * 7 % 50) / 100 for n in range(1, 100, 2))
    assert [round(lead, 6) for lead in leads] == sorted(everything[-4:], reverse=True)
    assert not any(one.right for one in choice.wrong)
    assert all(one.right for one in choice.right)
    assert (len(choice.wrong), len(choice.right)) == (6, 5)
    indices = [one.index for one in choice.samples]
    assert indices == sorted(set(indices))
    # Spread over the data set, not bunched at its beginning.
    assert choice.right[0].index < 20
    assert choice.right[-1].index > 80


def test_few_samples_are_shown_once() -> None:
    choice = choose([sample(0, right=False), sample(1, right=True)])
    assert [one.index for one in choice.samples] == [0, 1]
    assert choose([]).samples == []
    single = SampleResult(3, "s", ("x",), False, (Answer("only", 0.5, False),))
    assert choose([single]).wrong == [single]  # nothing tells how sure it was


def test_pictures_of_searches_are_kept(make_classification, tmp_path: Path) -> None:
    dataset = open_dataset(make_classification())
    details = {"searches": [{"image": 3, "answers": [{"image": 1, "similarity": 0.3}]}]}
    assert pictured([sample(0, right=True)], details) == [0, 1, 3]
    save_gallery(tmp_path / "images", dataset, [sample(0, right=True)], details)
    assert sorted(path.name for path in (tmp_path / "images").iterdir()) == ["0.png", "1.png", "3.png"]
    with Image.open(tmp_path / "images" / "3.png") as picture:
        assert max(picture.size) <= 128
