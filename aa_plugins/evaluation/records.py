"""Records of single images on disk, so that an interrupted evaluation can go on.

Each process appends one JSON line as an image is done to a file of its own,
``records.<rank>of<processes>.jsonl``, below a header line with the protocol and the identity of
the run. Nothing is kept in memory. Reading merges the files of a folder: in the order of image
ids, each id once, whatever the number of processes. Files that end in ``.xz`` are read, too. An id
twice in one file is an error; in the files of two processes it isn't, as distributed samplers fill
up the last batch with images of another process.
"""

from __future__ import annotations

import json
import logging
import lzma
from collections.abc import Iterator
from pathlib import Path

from aa_plugins.evaluation.protocol import Protocol
from aa_plugins.evaluation.sequences import compiled, place_of

logger = logging.getLogger(__name__)


class RecordWriter:
    """Appends the records of one process; a context manager.

    Args:
        folder: where the files go; made if missing.
        protocol: of the run.
        identity: JSON-able dict of what else must not change between a run and its resumption,
            as :func:`~aa_plugins.evaluation.identity.run_identity` makes it: model, weights, data,
            pipeline, software.
        rank, processes: of this process.
        resume: go on with the files in the folder, written by any number of processes. Otherwise
            the run starts afresh and replaces them.
        task: what the records are of, such as ``"semantic"``.
        sequences: the rule by which a record gets its ``sequence`` and ``position`` from the
            image's id (:mod:`aa_plugins.evaluation.sequences`); none where images are unordered.

    Attributes:
        done: ids of the images that are finished already, those left out among them.
        left_out: of these, the ids that are left out, and why.

    Raises:
        ValueError: on resuming, a header differs.
    """

    def __init__(
        self,
        folder: str | Path,
        protocol: Protocol,
        identity: dict,
        rank: int = 0,
        processes: int = 1,
        resume: bool = False,
        task: str | None = None,
        sequences: str | None = None,
    ):
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"records.{rank}of{processes}.jsonl"
        header = {"protocol": protocol.to_dict(), "identity": identity}
        header |= {} if sequences is None else {"sequences": sequences}
        header = json.loads(json.dumps(header if task is None else {"task": task, **header}))
        self._places = None if sequences is None else compiled(sequences)
        self.done: set[str | int] = set()
        self.left_out: dict[str | int, str] = {}
        kept = 0
        if resume:
            for other in record_files(folder):
                for line, end in _lines(other):
                    if "header" in line:
                        _check_header(line["header"], header, other)
                    else:
                        self.done.add(line["image_id"])
                        if "left_out" in line:
                            self.left_out[line["image_id"]] = line["left_out"]
                    kept = end if other == path else kept
        else:
            for other in record_files(folder):
                if not other.name.endswith(f"of{processes}.jsonl"):
                    other.unlink(missing_ok=True)
        if self.done and (unsaid := sorted({"weights", "data", "pipeline"} - identity.keys())):
            logger.warning(
                f"going on with {len(self.done)} records in {folder}, without knowing whether they "
                f"are of the same {', '.join(unsaid)}: give the identity that run_identity makes"
            )
        self._written: set[str | int] = set(self.done)
        # Cuts off what a killed process left of its last line.
        self._file = path.open("r+b" if resume and path.exists() else "w+b")
        self._file.truncate(kept)
        self._file.seek(kept)
        if not kept:
            self._write({"header": header})

    def append(self, record: dict) -> dict:
        """Writes the record of an image; it survives the process from here on.

        Returns:
            the record as written, with its place in a sequence where there is a rule.

        Raises:
            ValueError: there is a record of this id already, or the rule for sequences doesn't
                match the id.
        """
        if record["image_id"] in self._written:
            raise ValueError(_twice(record["image_id"], self._file.name))
        self._written.add(record["image_id"])
        if self._places is not None and "left_out" not in record:
            record = {**record, **place_of(str(record["image_id"]), self._places)}
        self._write(record)
        return record

    def leave_out(self, image_id: str | int, reason: str) -> None:
        """Writes that an image can't be measured, and why."""
        self.append({"image_id": image_id, "left_out": reason})

    def _write(self, line: dict) -> None:
        self._file.write(json.dumps(line, allow_nan=False).encode() + b"\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> RecordWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def record_files(folder: str | Path) -> list[Path]:
    """The record files of all processes in a folder, sorted by name."""
    return sorted(Path(folder).glob("records.*of*.jsonl*"))


def read_records(folder: str | Path) -> tuple[dict, list[dict]]:
    """Merges the files of a folder.

    Returns:
        the header (``protocol``, ``identity``, ``task``, and in ``left_out`` the ids of the images
        that are left out, with the reasons) and the records in the order of image ids, each id
        once.

    Raises:
        ValueError: no records, files of different runs, or a file that has an id twice.
    """
    header, records, left_out = None, {}, {}
    for path in record_files(folder):
        here = set()
        for line, _ in _lines(path):
            if "header" not in line:
                image_id = line["image_id"]
                if image_id in here:
                    raise ValueError(_twice(image_id, path))
                here.add(image_id)
                if "left_out" in line:
                    left_out.setdefault(image_id, line["left_out"])
                else:
                    records.setdefault(image_id, line)
            elif header is None:
                header = line["header"]
            else:
                _check_header(line["header"], header, path)
    if header is None and (records or left_out):
        raise ValueError(f"the records in {folder} have no header line: measure them again")
    if not records:
        reasons = [f"; {left_out_id!r}: {reason}" for left_out_id, reason in left_out.items()]
        remedy = "".join(reasons[:1]) or "; run the evaluation first"
        raise ValueError(f"no records in {folder}{remedy}")
    left_out = {image_id: left_out[image_id] for image_id in sorted(left_out, key=_by_id)}
    return {**header, "left_out": left_out}, sorted_records(list(records.values()))


def sorted_records(records: list[dict]) -> list[dict]:
    """Records in the order of image ids: numbers first, then text. Raises ValueError if none."""
    if not records:
        raise ValueError("no records to summarise; evaluate at least one image")
    return sorted(records, key=lambda record: _by_id(record["image_id"]))


def _by_id(image_id: str | int) -> tuple:
    return isinstance(image_id, str), image_id


def paired_records(a: list[dict], b: list[dict]) -> tuple[list[dict], list[dict]]:
    """The records of two models in the same order.

    Raises:
        ValueError: the images or the protocols differ.
    """
    a, b = sorted_records(a), sorted_records(b)
    ids_a, ids_b = ([record["image_id"] for record in records] for records in (a, b))
    if ids_a != ids_b:
        odd = sorted(map(str, set(ids_a) ^ set(ids_b)))
        example = f", such as {odd[0]!r}" if odd else ""
        raise ValueError(
            f"the two runs share {len(set(ids_a) & set(ids_b))} images, but {len(odd)} are in one "
            f"alone{example}; finish both runs (--resume) on the same images"
        )
    if {record["protocol"] for record in a} != {record["protocol"] for record in b}:
        raise ValueError(
            "the two runs used different protocols; evaluate both models with the same one "
            "(stride: the largest of both, other_strides: the others)"
        )
    return a, b


def _lines(path: Path) -> Iterator[tuple[dict, int]]:
    """The whole lines of a file, each with the byte after it; a torn last line is left out."""
    end = 0
    with (lzma.open if path.suffix == ".xz" else open)(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            end += len(line)
            try:
                yield json.loads(line), end
            except json.JSONDecodeError as error:
                raise ValueError(
                    f"{path}, line {number} isn't JSON ({error}); delete the file and run again"
                ) from None


def _twice(image_id: str | int, path: object) -> str:
    return (
        f"{path} has two records of image {image_id!r}; give every image an id of its own and "
        "start afresh"
    )


def _check_header(found: dict, wanted: dict, path: Path) -> None:
    for name in ("task", "sequences"):
        if found.get(name) != wanted.get(name):
            raise ValueError(
                f"{path} was written with {name}={found.get(name)!r}, this run has "
                f"{wanted.get(name)!r}; use another folder, or start afresh"
            )
    for section in ("protocol", "identity"):
        for name in sorted({*found[section], *wanted[section]}):
            old, new = found[section].get(name), wanted[section].get(name)
            if old != new:
                raise ValueError(
                    f"{path} was written with {section} {name}={old!r}, this run has {new!r}; "
                    "resume with the same settings, use another folder, or start afresh"
                )
