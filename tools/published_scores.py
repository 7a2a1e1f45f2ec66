"""Write clip-eval's published scores from the tables in open_clip's `docs` folder.

    python tools/published_scores.py open_clip/docs

reads `openclip_results.csv`, `openclip_retrieval_results.csv` and `openclip_multilingual_retrieval_results.csv`; in
`openclip_classification_results.csv` stands nothing that the first of them does not have. Kept is what cannot be worked
out from the rest: no averages (each is checked to be the plain mean of its columns), one row where two names mean the
same weights and figures, scores in ten-thousandths.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from clip_eval.catalogue import find

__all__ = ["main"]

_FOLDER = Path(__file__).parent.parent / "packages/clip-eval/src/clip_eval/published"
_AVERAGE = "Average perf. on 38 datasets"
_FACTS = ("name", "pretrained", "params (M)", "FLOPs (B)")
_JACCARD = "WinoGAViL jaccard score "

_Row = Mapping[str, str]


def main(folder: str) -> None:
    """Write the three files."""
    docs = Path(folder)
    zero_shot = _read(docs / "openclip_results.csv")
    scores = [column for column in zero_shot[0] if column not in (*_FACTS, _AVERAGE)]
    _check_means(zero_shot, _AVERAGE, scores)
    kept = [row for row in zero_shot if not _is_twin(row, zero_shot, scores)]
    header = ["model", "tag", "parameters", "flops", *(find(column).name for column in scores)]
    _write("zero_shot.csv", header, [[*_facts(row), *_tenths(row, scores)] for row in kept])

    retrieval = _read(docs / "openclip_retrieval_results.csv")
    columns = [column for column in retrieval[0] if column not in (*_FACTS, "Average score")]
    _check_means(retrieval, "Average score", columns)
    held = {(row["name"], row["pretrained"]) for row in kept}
    rows = [row for row in retrieval if (row["name"], row["pretrained"]) in held]
    header = ["model", "tag", *map(_retrieval_key, columns)]
    _write("retrieval.csv", header, [[row["name"], row["pretrained"], *_tenths(row, columns)] for row in rows])

    tongues = _read(docs / "openclip_multilingual_retrieval_results.csv")
    columns = [column for column in tongues[0] if column not in ("model", "version") and not column.endswith("avg")]
    for average in (column for column in tongues[0] if column.endswith(" avg")):
        _check_means(tongues, average, [one for one in columns if one.startswith(average.removesuffix("avg"))])
    twins = {(row["name"], row["pretrained"]) for row in zero_shot} - held
    rows = [row for row in tongues if (row["model"], row["version"]) not in twins]
    _write(
        "multilingual.csv",
        ["model", "tag", *columns],
        [[row["model"], row["version"], *_tenths(row, columns)] for row in rows],
    )


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def _facts(row: _Row) -> list[str]:
    return [row[column] for column in _FACTS]


def _tenths(row: _Row, columns: Sequence[str]) -> list[str]:
    """Scores of four decimals as whole numbers."""
    return [str(round(float(row[column]) * 10_000)) for column in columns]


def _check_means(rows: Sequence[_Row], average: str, columns: Sequence[str]) -> None:
    for row in rows:
        mean = sum(float(row[column]) for column in columns) / len(columns)
        if abs(mean - float(row[average])) > 1.01e-4:
            raise SystemExit(f"{row}: {average} is not the mean of its columns, {mean}")


def _is_twin(row: _Row, rows: Sequence[_Row], scores: Sequence[str]) -> bool:
    """Whether the same weights and figures stand under the name without -quickgelu too."""
    plain = row["name"].removesuffix("-quickgelu")
    return plain != row["name"] and any(
        (other["name"], other["pretrained"]) == (plain, row["pretrained"])
        and all(other[column] == row[column] for column in scores)
        for other in rows
    )


def _retrieval_key(column: str) -> str:
    """`Flickr image retr. R@1` is `flickr30k image_retrieval_recall@1` here, a data set and a metric."""
    if column == "WinoGAViL avg jaccard score":
        return "winogavil avg_jaccard_score"
    if column.startswith(_JACCARD):
        return f"winogavil jaccard_score_{column.removeprefix(_JACCARD)}"
    title, side, _, recall = column.split()
    return f"{find(title).name} {side}_retrieval_recall@{recall.removeprefix('R@')}"


def _write(name: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    with (_FOLDER / name).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


if __name__ == "__main__":
    main(sys.argv[1])
