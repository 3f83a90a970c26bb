"""Following a log that another process writes: partial lines, rotation, truncation, rubbish."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftnids.alerts.follow import LineFollower
from ftnids.alerts.readers import EveReader, SnortJsonReader, eve_time, timestamp_us

from .records import alert


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def test_no_file_is_no_lines_yet(tmp_path: Path) -> None:
    follower = LineFollower(tmp_path / "eve.json")
    assert follower.poll() == []
    append(tmp_path / "eve.json", b"one\n")
    assert follower.poll() == [b"one"]
    follower.close()


@given(lines=st.lists(st.binary(max_size=20).map(lambda b: b.replace(b"\n", b"-") + b"."), max_size=20), data=st.data())
def test_every_line_comes_once_however_it_is_cut(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("follow") / "log"
    content = b"".join(line + b"\n" for line in lines)
    follower = LineFollower(path, chunk=data.draw(st.integers(1, 64)))
    got: list[bytes] = []
    at = 0
    while at < len(content):
        step = data.draw(st.integers(1, len(content) - at))
        append(path, content[at : at + step])
        at += step
        got += follower.poll()
    got += follower.poll(final=True)
    follower.close()
    assert got == lines


def test_last_line_without_newline_comes_at_the_end_only(tmp_path: Path) -> None:
    path = tmp_path / "log"
    append(path, b"whole\npart")
    follower = LineFollower(path)
    assert follower.poll() == [b"whole"]
    assert follower.poll() == []
    assert follower.poll(final=True) == [b"part"]
    assert follower.poll(final=True) == []
    follower.close()


def test_truncated_file_is_read_from_its_start(tmp_path: Path) -> None:
    path = tmp_path / "log"
    append(path, b"first\nsecond\n")
    follower = LineFollower(path)
    assert follower.poll() == [b"first", b"second"]
    path.write_bytes(b"third\n")
    assert follower.poll() == [b"third"]
    assert follower.restarts == 1
    follower.close()


def test_rotated_file_is_read_to_its_end_first(tmp_path: Path) -> None:
    path = tmp_path / "log"
    append(path, b"first\n")
    follower = LineFollower(path)
    assert follower.poll() == [b"first"]
    append(path, b"second\n")
    path.rename(tmp_path / "log.1")
    append(path, b"third\n")
    assert follower.poll(final=True) == [b"second", b"third"]
    assert follower.restarts == 1
    follower.close()


@pytest.mark.parametrize("chunk", [7, 64, 1000])
def test_overlong_lines_are_skipped_and_counted(tmp_path: Path, chunk: int) -> None:
    path = tmp_path / "log"
    append(path, b"a\n" + b"x" * 100 + b"\nb\n" + b"y" * 500 + b"\nc\n")
    follower = LineFollower(path, max_line=50, chunk=chunk)
    assert follower.poll(final=True) == [b"a", b"b", b"c"]
    assert follower.overlong == 2
    follower.close()


def test_rubbish_in_eve_is_skipped_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "eve.json"
    good = {
        "timestamp": "2023-11-14T22:13:20.013998+0000",
        "event_type": "alert",
        "flow_id": 7,
        "alert": {"gid": 1, "signature_id": 2, "rev": 3},
    }
    rubbish = [
        b"{",
        b"[1]",
        b"null",
        b"\xff\xfe",
        b'{"event_type":"dns"}',
        b'{"timestamp":5,"event_type":"dns"}',
        b"[" * 5000,
    ]
    rubbish += [json.dumps({**good, "alert": {"gid": "x"}}).encode(), json.dumps({**good, "alert": 1}).encode()]
    append(path, b"\n".join([*rubbish, json.dumps(good).encode(), b""]))
    reader = EveReader(path)
    (record,) = reader.poll(final=True)
    reader.close()
    assert reader.invalid == len(rubbish)
    assert "flow_id" not in record  # means something in one process only
    assert timestamp_us(record) == 1_700_000_000_013_998


def test_snort_lines_become_eve_records(tmp_path: Path) -> None:
    line = {
        "seconds": 1700000000,
        "timestamp": "11/14-22:13:20.236159",
        "pkt_num": 31,
        "pkt_gen": "stream_tcp",
        "gid": 119,
        "sid": 227,
        "rev": 1,
        "msg": "(http_inspect) multiple Content-Encodings applied",
        "class": "none",
        "priority": 3,
        "action": "allow",
        "proto": "TCP",
        "src_addr": "8.8.8.8",
        "src_port": 80,
        "dst_addr": "1.1.1.1",
        "dst_port": 10749,
    }
    path = tmp_path / "alert_json.txt"
    append(path, json.dumps(line).encode() + b"\n{}\n")
    reader = SnortJsonReader(path)
    (record,) = reader.poll(final=True)
    reader.close()
    assert reader.invalid == 1
    assert record["timestamp"] == "2023-11-14T22:13:20.236159+0000"
    assert (record["src_ip"], record["src_port"], record["dest_ip"], record["dest_port"]) == (
        "8.8.8.8",
        80,
        "1.1.1.1",
        10749,
    )
    assert record["alert"]["signature_id"] == 227
    assert record["pcap_cnt"] == 31


@given(st.integers(0, 4_000_000_000_000_000))
def test_times_survive_the_round_trip(time_us: int) -> None:
    assert timestamp_us({"timestamp": eve_time(time_us)}) == time_us


def test_huge_record_keeps_its_main_fields(tmp_path: Path) -> None:
    huge = alert(packet=7) | {"dnp3": {"request": ["x" * 100] * 5000}}
    path = tmp_path / "eve.json"
    append(path, json.dumps(huge).encode() + b"\n" + json.dumps(alert()).encode() + b"\n")
    reader = EveReader(path)
    records = reader.poll(final=True)
    reader.close()
    assert records == [alert(packet=7), alert()]
    assert (reader.trimmed, reader.invalid, reader.lines.overlong) == (1, 0, 0)


def test_nothing_behind_the_limit_is_read_however_often_it_is_cut(tmp_path: Path) -> None:
    log = tmp_path / "log"
    follower = LineFollower(log)
    log.write_bytes(b"one\ntw")
    follower.limit = log.stat().st_size
    with log.open("ab") as file:
        file.write(b"isted\nwrong\n")
    assert follower.poll() == [b"one"]
    assert follower.poll(final=True) == [], "half a line at the limit is none"
    for right in (b"o\nthree\n", b"o\nthree\nfour\n"):
        os.truncate(log, follower.limit)
        with log.open("ab") as file:
            file.write(right)
        assert follower.poll() == []
    follower.limit = None
    assert follower.poll() == [b"two", b"three", b"four"]
    assert follower.restarts == 0
    follower.close()
