"""Records of random runs: cut off, resumed, spread over processes, they end as one run would."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from aa_plugins.evaluation.protocol import Protocol
from aa_plugins.evaluation.records import RecordWriter, read_records, record_files

PROTOCOL = Protocol(stride=8)
LETTERS = "ab/._-ÄÖ 0123456789\"'\\"


def ids_of(draw: random.Random) -> list[str | int]:
    """Different ids: numbers, or odd names, which may look like numbers."""
    count = draw.randint(1, 12)
    if draw.random() < 0.4:
        return draw.sample(range(10**6), count)
    found: set[str] = set()
    while len(found) < count:
        found.add("".join(draw.choices(LETTERS, k=draw.randint(1, 12))))
    return sorted(found)


def value_of(image_id: str | int) -> dict:
    return {"image_id": image_id, "value": len(repr(image_id)) / 7}


def process(folder: Path, ids: list, rank: int, processes: int, resume: bool, stop: int) -> None:
    """One process of a run, killed after `stop` images, maybe in the midst of a line."""
    with RecordWriter(folder, PROTOCOL, {"data": len(ids)}, rank, processes, resume) as writer:
        for number, image_id in enumerate(ids[rank::processes]):
            if number == stop:
                return
            if image_id in writer.done:
                continue
            if hash(str(image_id)) % 5 == 0:
                writer.leave_out(image_id, "too small")
            else:
                writer.append(value_of(image_id))


def cut(draw: random.Random, folder: Path) -> None:
    """Take away the end of a file, as a killed process leaves it."""
    path = draw.choice(record_files(folder))
    content = path.read_bytes()
    if draw.random() < 0.7 and len(content) > 1:
        path.write_bytes(content[: -draw.randint(1, min(len(content) - 1, 30))])


def check(seed: int, folder: Path) -> None:
    draw = random.Random(seed)
    ids = ids_of(draw)
    process(folder / "whole", ids, 0, 1, False, len(ids))
    resume = False
    for _ in range(draw.randint(0, 3)):
        processes = draw.randint(1, 3)
        for rank in range(processes):
            process(folder / "parts", ids, rank, processes, resume, draw.randint(0, len(ids)))
        cut(draw, folder / "parts")
        resume = True
    processes = draw.randint(1, 3)
    for rank in range(processes):
        process(folder / "parts", ids, rank, processes, resume, len(ids))
    try:
        whole = read_records(folder / "whole")
    except ValueError as error:
        assert "no records" in str(error)  # all of them were left out
        with pytest.raises(ValueError, match="no records"):
            read_records(folder / "parts")
        return
    header, records = read_records(folder / "parts")
    assert (header["left_out"], records) == (whole[0]["left_out"], whole[1]), f"run {seed}"
    seen = [record["image_id"] for record in records] + list(header["left_out"])
    assert sorted(map(repr, seen)) == sorted(map(repr, ids)), f"run {seed}"


def test_a_few_runs(tmp_path):
    for seed in range(40):
        check(seed, tmp_path / str(seed))


@pytest.mark.slow
@pytest.mark.parametrize("hundred", range(20))
def test_two_thousand_runs(hundred, tmp_path):
    for number in range(100):
        check(1000 + 100 * hundred + number, tmp_path / str(number))
