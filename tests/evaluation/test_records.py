import json
import lzma
import os
import signal
import subprocess
import sys

import pytest

from aa_plugins.evaluation import Protocol, RecordWriter, read_records
from aa_plugins.evaluation.records import paired_records, record_files

PROTOCOL = Protocol(stride=8)
IDENTITY = {"config": "c1", "weights": "w1"}


def write(folder, ids, **options):
    with RecordWriter(folder, PROTOCOL, IDENTITY, **options) as writer:
        for image_id in ids:
            if image_id not in writer.done:
                writer.append({"image_id": image_id, "value": image_id * 0.1})
        return writer.done


def ids(folder):
    return [record["image_id"] for record in read_records(folder)[1]]


def test_round_trip(tmp_path):
    write(tmp_path, [3, 1, 2])
    header, records = read_records(tmp_path)
    assert Protocol.from_dict(header["protocol"]) == PROTOCOL
    assert header["identity"] == IDENTITY
    assert records == [{"image_id": i, "value": i * 0.1} for i in (1, 2, 3)]


def test_compressed_files_are_read_alike(tmp_path):
    write(tmp_path, [3, 1, 2])
    expected = read_records(tmp_path)
    (path,) = record_files(tmp_path)
    path.with_name(f"{path.name}.xz").write_bytes(lzma.compress(path.read_bytes()))
    path.unlink()
    assert read_records(tmp_path) == expected


def test_two_processes_equal_one(tmp_path):
    write(tmp_path / "one", range(7))
    # A distributed sampler pads the last batch with an image of another rank.
    write(tmp_path / "two", [1, 3, 5, 0], rank=1, processes=2)
    write(tmp_path / "two", [0, 2, 4, 6], rank=0, processes=2)
    assert read_records(tmp_path / "one") == read_records(tmp_path / "two")


@pytest.mark.parametrize("cut", [1, 2, 10, 24])
def test_a_torn_line_is_dropped_and_done_again(tmp_path, cut):
    write(tmp_path, range(3))
    (path,) = record_files(tmp_path)
    path.write_bytes(path.read_bytes()[:-cut])
    assert ids(tmp_path) == [0, 1]
    assert write(tmp_path, range(5), resume=True) == {0, 1}
    assert ids(tmp_path) == [0, 1, 2, 3, 4]
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_a_torn_header_starts_afresh(tmp_path):
    write(tmp_path, [])
    (path,) = record_files(tmp_path)
    path.write_bytes(path.read_bytes()[:20])
    assert write(tmp_path, [4], resume=True) == set()
    assert ids(tmp_path) == [4]


def test_a_killed_process_loses_nothing_that_was_finished(tmp_path):
    code = (
        "import sys, time; from aa_plugins.evaluation import Protocol, RecordWriter\n"
        f"writer = RecordWriter({str(tmp_path)!r}, Protocol(stride=8), {IDENTITY!r})\n"
        "for i in range(5): writer.append({'image_id': i, 'value': i * 0.1})\n"
        "print('ready', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert write(tmp_path, range(8), resume=True) == set(range(5))
    resumed = read_records(tmp_path)
    write(tmp_path / "straight", range(8))
    assert resumed == read_records(tmp_path / "straight")


def test_resuming_with_another_number_of_processes(tmp_path):
    write(tmp_path, [0, 2], rank=0, processes=2)
    write(tmp_path, [1], rank=1, processes=2)
    assert write(tmp_path, range(5), resume=True) == {0, 1, 2}
    assert ids(tmp_path) == [0, 1, 2, 3, 4]
    # A fresh run leaves nothing of the old one behind.
    write(tmp_path, [9])
    assert ids(tmp_path) == [9]
    assert len(record_files(tmp_path)) == 1


def test_another_run_is_refused(tmp_path):
    write(tmp_path, [0])
    with pytest.raises(ValueError, match="identity weights='w1', this run has 'w2'; resume with"):
        RecordWriter(tmp_path, PROTOCOL, {**IDENTITY, "weights": "w2"}, resume=True)
    with pytest.raises(ValueError, match="protocol stride=8, this run has 16"):
        RecordWriter(tmp_path, Protocol(stride=16), IDENTITY, resume=True)
    assert ids(tmp_path) == [0]
    with RecordWriter(tmp_path, Protocol(stride=16), IDENTITY, rank=1, processes=2) as writer:
        writer.append({"image_id": 1})
    (tmp_path / "records.0of2.jsonl").write_text(
        json.dumps({"header": {"protocol": PROTOCOL.to_dict(), "identity": IDENTITY}}) + "\n"
    )
    with pytest.raises(ValueError, match="protocol stride="):
        read_records(tmp_path)


def test_broken_files_are_named(tmp_path):
    with pytest.raises(ValueError, match="no records in"):
        read_records(tmp_path)
    write(tmp_path, [0, 1])
    (path,) = record_files(tmp_path)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[1][:7], lines[2]]) + "\n")
    with pytest.raises(ValueError, match="line 2 isn't JSON"):
        read_records(tmp_path)


def test_pairing():
    a = [{"image_id": i, "protocol": "p"} for i in (2, 0, 1)]
    b = [{"image_id": i, "protocol": "p"} for i in (0, 1, 2)]
    assert paired_records(a, b) == (b, b)
    with pytest.raises(ValueError, match="share 2 images, but 1 are in one alone, such as '2'"):
        paired_records(a, b[:2])
    with pytest.raises(ValueError, match="no records"):
        paired_records([], [])
    with pytest.raises(ValueError, match="different protocols"):
        paired_records(a, [{**record, "protocol": "q"} for record in b])
