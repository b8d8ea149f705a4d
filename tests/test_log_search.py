"""The line of a marker, found in real files of every condition."""

import json
import os
import threading
from pathlib import Path

import pytest

from petsage.log_reader import LineFilter
from petsage.log_search import MarkerSearch, SearchError

MARKER = "9f86d081884c7d659a2feaa0c55ad015"


def line(marker=MARKER, **fields):
    return json.dumps({"message": "hello", "level": "INFO", **fields, "marker": marker}).encode()


OTHER = line("0" * 32)


@pytest.fixture
def log(tmp_path):
    return tmp_path / "petsage.jsonl"


def found_in(log, marker=MARKER):
    found = MarkerSearch(marker).in_file(log)
    return found.line.rstrip(b"\n") if found is not None else None


@pytest.mark.parametrize("at", [0, 1, 2])
def test_the_line_is_found_wherever_it_stands(log, at):
    lines = [OTHER, OTHER]
    lines.insert(at, line())
    log.write_bytes(b"\n".join(lines) + b"\n")

    assert found_in(log) == line()


def test_the_newest_of_two_is_found(log):
    log.write_bytes(line(n=1) + b"\n" + line(n=2) + b"\n" + OTHER + b"\n")

    assert found_in(log) == line(n=2)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n\n",
        line("a" + MARKER),
        line(MARKER[:-1]),
        line(None, message=f'it said "marker": "{MARKER}"'),
        line(None, nested={"marker": MARKER}),
        json.dumps({"message": MARKER, "request_id": MARKER}).encode(),
        json.dumps([{"marker": MARKER}]).encode(),
        line()[:-1],
        line()[1:],
        b"\xff\xfe\x00" + MARKER.encode() + os.urandom(100).replace(b"\n", b""),
    ],
)
def test_what_merely_holds_the_marker_is_not_the_line(log, content):
    log.write_bytes(content + b"\n" + OTHER + b"\n")

    assert found_in(log) is None


@pytest.mark.parametrize("before", [line()[:40] + b"\n", b"\x00" * 5000, b"\xff\xfe\x80\n"])
def test_torn_lines_holes_and_junk_before_it_hide_it_not(log, before):
    log.write_bytes(before + line() + b"\n" + line()[:40])

    found = found_in(log)
    assert found is not None
    assert found.strip(b"\0") == line()


def test_a_last_line_without_its_newline_is_found(log):
    log.write_bytes(OTHER + b"\n" + line())

    assert found_in(log) == line()


@pytest.mark.parametrize("offset", range(-40, 40, 3))
def test_a_line_across_the_edge_of_what_is_read_at_once_is_found(log, offset):
    edge = 4 * 1024 * 1024
    with log.open("wb") as file:
        file.write(OTHER + b"\n" + line() + b"\n")
        rest = edge - len(MARKER) // 2 + offset
        file.write((b"x" * 99 + b"\n") * (rest // 100) + b"y" * (rest % 100))

    assert found_in(log) == line()


def test_a_line_longer_than_what_is_read_at_once_is_found(log):
    long = line(padding="x" * (5 * 1024 * 1024))
    log.write_bytes(OTHER + b"\n" + long + b"\n" + OTHER + b"\n")

    assert found_in(log) == long


def test_rotated_neighbours_are_looked_at_the_newest_first(log):
    log.write_bytes(OTHER)
    for number in (2, 10):
        log.with_name(f"petsage.jsonl.{number}").write_bytes(line(n=number))
    log.with_name("petsage.jsonl.gz").write_bytes(line())

    found = MarkerSearch(MARKER).in_file(log)

    assert found is not None
    assert found.file == log.with_name("petsage.jsonl.2")
    assert json.loads(found.line)["n"] == 2


def test_a_file_that_was_just_rotated_away_is_looked_for_among_its_neighbours(log):
    log.with_name("petsage.jsonl.1").write_bytes(line())

    assert found_in(log) == line()
    assert found_in(log, "f" * 32) is None


def test_a_file_that_is_not_there_or_is_a_folder_is_refused(log):
    with pytest.raises(SearchError, match="No such file"):
        found_in(log)
    log.mkdir()
    with pytest.raises(SearchError, match="Is a directory"):
        found_in(log)


def test_a_neighbour_that_cannot_be_read_leaves_it_unsaid_whether_the_line_is_there(log):
    log.write_bytes(OTHER)
    # Not even root can read what can only be written to.
    unreadable = next(Path("/sys/bus").glob("*/drivers_probe"), None)
    if unreadable is None:
        pytest.skip("there is no file in /sys that can only be written to")
    log.with_name("petsage.jsonl.1").symlink_to(unreadable)

    with pytest.raises(SearchError, match=r"petsage\.jsonl\.1 cannot be read: "):
        found_in(log)
    log.write_bytes(line())
    assert found_in(log) == line()


def test_a_stream_is_read_until_the_line_and_no_further(log):
    reader, writer = os.pipe()
    found = []
    with os.fdopen(reader, "rb") as source, os.fdopen(writer, "wb", buffering=0) as sink:
        search = threading.Thread(
            target=lambda: found.append(MarkerSearch(MARKER).in_stream(source))
        )
        search.start()
        sink.write(OTHER + b"\n" + line() + b"\n")
        search.join(timeout=10)  # the stream is still open
        assert not search.is_alive()
    (it,) = found
    assert it is not None
    assert it.line == line() + b"\n"


@pytest.mark.parametrize("marker", ["", "with space", 'quo"te', "back\\slash", "ümlaut", "a\n"])
def test_what_can_be_no_marker_is_refused(marker):
    with pytest.raises(SearchError, match="is no marker"):
        MarkerSearch(marker)


def test_other_filters_have_to_let_the_line_through(log):
    log.write_bytes(line())

    assert MarkerSearch(MARKER, LineFilter(level="INFO")).in_file(log) is not None
    assert MarkerSearch(MARKER, LineFilter(level="ERROR")).in_file(log) is None


def test_lines_of_a_marker_are_counted(log):
    search = MarkerSearch(MARKER)

    assert search.count_in(b"") == 0
    assert search.count_in(line() + b"\n" + OTHER + b"\n" + line() + b"\n" + line()[:-2]) == 2
