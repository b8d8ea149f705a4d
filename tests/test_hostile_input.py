"""Input that is wrong, hostile or huge: a short 4xx within a second, and little memory.

The second is the server's own: what others do on this machine does not count.
"""

import gzip
import json
import os
import shutil
import socket
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any
from uuid import UUID

import brotli  # type: ignore[import-untyped] # it has no types
import pytest

from tests.conftest import ServerProcess, errors_of, reading

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

DATA = Path(__file__).parent / "features_data"
KINDS, READERS, COSTLY = "/api/v1/kinds", "/api/v1/readers", "/api/v1/costly"
JSON = "Content-Type: application/json"
FORM = "Content-Type: application/x-www-form-urlencoded"
PARTS = "Content-Type: multipart/form-data; boundary=b"
WITHIN_S = 1.0
MAX_ANSWER = 10 * 1024
# One body of 1 MB, of which each field that lacks is told with all that is beside it, for a moment.
MAX_PEAK_KB = 320 * 1024
MAX_KEPT_KB = 96 * 1024

GOOD: dict[str, Any] = {
    "text": "", "short": "a", "code": "AB-1", "whole": 1, "bounded": 1, "even": 2, "real": 1.5,
    "share": 0.5, "yes": True, "color": "red", "one_of": "a", "day": "2026-01-31",
    "at": "2026-01-31T12:00:00Z", "time": "12:00:00", "price": "1.10", "maybe": None,
    "key": "6f1c1d2e-3b4a-4c5d-8e6f-7a8b9c0d1e2f", "home": {"street": "x"},
    "animal": {"kind": "cat"}, "left_out": 1, "words": [], "set_of": [], "pair": [1, "a"],
    "counts": {}, "others": [], "either": None, "aware": None,
}  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """An answer that came whole, and how much of a processor's time it took."""

    status: int
    body: bytes
    took_s: float


class Target:
    """A server that is asked, on a connection for each request."""

    def __init__(self, server: ServerProcess) -> None:
        self.server = server
        host, _, port = server.address.removeprefix("http://").partition(":")
        self._address = (host, int(port))

    def ask(self, method: str, path: str, body: bytes = b"", *headers: str | bytes) -> Answer:
        lines = [f"{method} {path} HTTP/1.1", "Host: x", "Connection: close", *headers]
        if body or method in {"POST", "PUT", "PATCH"}:
            lines.append(f"Content-Length: {len(body)}")
        head = b"\r\n".join(each if isinstance(each, bytes) else each.encode() for each in lines)
        began_s = self._cpu_s()
        with socket.create_connection(self._address, timeout=30) as connection:
            connection.sendall(head + b"\r\n\r\n" + body)
            answer = b""
            while piece := connection.recv(65536):
                answer += piece
        took_s = self._cpu_s() - began_s
        head, _, answered = answer.partition(b"\r\n\r\n")
        return Answer(int(head.split(b" ")[1]), answered, took_s)

    def _cpu_s(self) -> float:
        fields = Path(f"/proc/{self.server.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_kb(self, field: str) -> int:
        """What the kernel says of the process: `VmRSS` now, `VmHWM` at its most."""
        for line in Path(f"/proc/{self.server.pid}/status").read_text().splitlines():
            if line.startswith(field):
                return int(line.split()[1])
        raise AssertionError(field)


@pytest.fixture(scope="module")
def target(
    tmp_path_factory: pytest.TempPathFactory, bytecode_apart: None, tokens_apart: None
) -> Iterator[Target]:
    folder = tmp_path_factory.mktemp("hostile") / "project"
    for name in ("kinds", "readers", "costly"):
        shutil.copytree(DATA / name, folder / "features" / name)
    server = ServerProcess(folder, (), {})
    with reading(server):
        yield Target(server)


@pytest.fixture(autouse=True)
def stays_well(target: Target) -> Iterator[None]:
    """Holds the server to its memory, and to a log without failures, in each test."""
    before_kb = target.memory_kb("VmRSS")
    Path(f"/proc/{target.server.pid}/clear_refs").write_text("5")  # the most begins anew
    logged = len(target.server.lines)
    yield
    assert target.memory_kb("VmHWM") - before_kb < MAX_PEAK_KB
    assert target.memory_kb("VmRSS") - before_kb < MAX_KEPT_KB
    assert not errors_of(target.server.lines[logged:])
    assert target.ask("GET", f"{KINDS}/text/well").body == b'"well"'


def refused(answer: Answer, *statuses: int) -> dict[str, Any]:
    """The problem of an answer that is short, quick, and says that the client is wrong."""
    assert 400 <= answer.status < 500, answer.body[:500]
    assert not statuses or answer.status in statuses, answer.body[:500]
    assert answer.took_s < WITHIN_S
    assert len(answer.body) < MAX_ANSWER
    problem: dict[str, Any] = json.loads(answer.body)
    assert problem["status"] == answer.status
    return problem


# Where a body of JSON is taken: by an ordinary type, by the request, by several, and by any.
BODIES = [
    ("POST", f"{KINDS}/everything"),
    ("POST", f"{KINDS}/nodes"),
    ("POST", f"{KINDS}/any"),
    ("PUT", f"{KINDS}/union"),
    ("PUT", f"{KINDS}/owner"),
    ("DELETE", f"{KINDS}/ids"),
    ("POST", f"{READERS}/json"),
]


@pytest.mark.parametrize(("method", "path"), BODIES)
@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b'[{"a":' * 100_000,
        b"[" * 1_000_000,
    ],
    ids=["arrays", "objects", "both", "open"],
)
def test_what_is_nested_deep_is_refused(
    target: Target, method: str, path: str, body: bytes
) -> None:
    refused(target.ask(method, path, body, JSON), 400)


@pytest.mark.parametrize(
    "number", ["9" * 10_000, "-" + "9" * 10_000, "1e999999", "-1e400", "9" * 1_000_000]
)
def test_a_number_that_no_computer_has_is_refused(target: Target, number: str) -> None:
    for name in GOOD:
        body = json.dumps({**GOOD, name: "@"}).replace('"@"', number).encode()
        refused(target.ask("POST", f"{KINDS}/everything", body, JSON), 400, 422)
    for method, path in BODIES[:-1]:
        refused(target.ask(method, path, number.encode(), JSON), 400, 422)
    if len(number) < 8_000:
        for path in (f"/query?needed={number}", f"/query?needed=1&at={number}",
                     f"/query?needed=1&ratio={number}", f"/filter?min-age={number}",
                     f"/path/{GOOD['key']}/{number}/2026-01-31/red"):  # fmt: skip
            refused(target.ask("GET", KINDS + path), 422)


def test_a_number_that_is_spelt_otherwise_is_the_same_number(target: Target) -> None:
    body = json.dumps({**GOOD, "whole": "@"}).encode()
    for number in (b"7.0", b"0.7e1", b"70e-1"):
        answer = target.ask("POST", f"{KINDS}/everything", body.replace(b'"@"', number), JSON)
        assert (answer.status, json.loads(answer.body)["whole"]) == (201, 7)
    for number in (b"7.5", b'"7"', b"true"):
        answer = target.ask("POST", f"{KINDS}/everything", body.replace(b'"@"', number), JSON)
        assert refused(answer, 422)["errors"][0]["pointer"] == "/whole"


def test_a_number_is_no_day(target: Target) -> None:
    for name in ("day", "at"):
        body = json.dumps({**GOOD, name: "0"}).encode()
        problem = refused(target.ask("POST", f"{KINDS}/everything", body, JSON), 422)
        assert [each["pointer"] for each in problem["errors"]] == [f"/{name}"]
    for query in ("/filter?min-age=1&born=0", "/query?needed=1&at=1.5e3"):
        refused(target.ask("GET", KINDS + query), 422)


ANY_JSON: dict[str, Any] = {
    "null": None, "true": True, "integer": 1, "number": 1.5, "string": "zz", "array": [],
    "object": {}, "nested": [[[{}]]], "long": "x" * 100_000,
}  # fmt: skip


@pytest.mark.parametrize("kind", ANY_JSON)
def test_every_type_where_another_is_expected_is_taken_or_refused(
    target: Target, kind: str
) -> None:
    value = ANY_JSON[kind]
    bodies = [("POST", f"{KINDS}/everything", {**GOOD, name: value}) for name in GOOD]
    bodies += [(method, path, value) for method, path in BODIES[:-1]]
    bodies += [("PUT", f"{KINDS}/visit", value), ("PUT", f"{KINDS}/animal/1", value)]
    refusals = 0
    for method, path, body in bodies:
        answer = target.ask(method, path, json.dumps(body).encode(), JSON)
        if answer.status >= 300:
            refused(answer, 400, 422)
            refusals += 1
    assert refusals > len(bodies) / 2


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("DELETE", "/ids", b"[" + b",".join([b'"x"'] * 250_000) + b"]"),
        ("DELETE", "/ids", b"[" + b",".join([b'"x"'] * 9_000) + b"]"),
        ("POST", "/nodes", b"[" + b",".join([b"{}"] * 9_000) + b"]"),
        ("POST", "/everything", json.dumps({f"k{n}": n for n in range(60_000)}).encode()),
        ("POST", "/everything", b"{" + b'"text":"b",' * 80_000 + b'"text":"c"}'),
        ("PATCH", "/merge", json.dumps({"k" * 1_000_000: "x"}).encode()),
        ("PATCH", "/merge", json.dumps({f"{n}" + "\x01" * 150: "x" for n in range(600)}).encode()),
        ("PATCH", "/merge", json.dumps({f"{n}\U0001f600" * 100: "x" for n in range(500)}).encode()),
    ],
    ids=["too many", "many", "many places", "unknown keys", "one key again and again", "long key",
         "keys of controls", "keys of emoji"],
)  # fmt: skip
def test_many_errors_are_counted_and_told_shortly(
    target: Target, method: str, path: str, body: bytes
) -> None:
    kind = "Content-Type: application/merge-patch+json" if path == "/merge" else JSON
    problem = refused(target.ask(method, KINDS + path, body, kind), 422)
    told = len(problem["errors"])
    assert 1 <= told <= 50
    count = int(problem["detail"].split()[0])
    assert count >= told
    assert ("see `errors`" in problem["detail"]) == (count == told)


def test_of_names_that_are_there_twice_the_last_counts(target: Target) -> None:
    body = b'{"name": 5, "name": "Mia", "since": "x", "since": null}'
    assert target.ask("PUT", f"{KINDS}/owner", body, JSON).body == b'{"name":"Mia","since":null}'
    body = b'{"name": "Mia", "name": 5}'
    assert refused(target.ask("PUT", f"{KINDS}/owner", body, JSON))["errors"][0]["in"] == "body"


@pytest.mark.parametrize("text", [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\\ud800", b"\xf5\x80"])
def test_what_is_no_unicode_is_refused_wherever_it_stands(target: Target, text: bytes) -> None:
    body = json.dumps({**GOOD, "text": "@"}).encode().replace(b"@", text)
    refused(target.ask("POST", f"{KINDS}/everything", body, JSON), 400)
    if b"\\" not in text:
        escaped = "".join(f"%{byte:02x}" for byte in text)
        refused(target.ask("GET", f"{KINDS}/text/{escaped}"), 400)
        refused(target.ask("GET", f"{KINDS}/labels?a={escaped}"), 422)
        refused(target.ask("GET", f"{KINDS}/headers", b"", "X-Count: 1", b"X-Text: " + text), 422)
        refused(target.ask("POST", f"{READERS}/text", text, "Content-Type: text/plain"), 400)
        refused(target.ask("POST", f"{READERS}/form", b"a=" + text, FORM), 400)


CHARSETS = [
    "nonsense",
    "utf-16",
    "idna",
    "base64",
    "hex",
    "rot13",
    "undefined",
    "zlib",
    "x" * 3_000,
]


@pytest.mark.parametrize("charset", CHARSETS)
def test_a_charset_that_the_body_is_not_in_is_refused(target: Target, charset: str) -> None:
    body = b'{"aa": "\xff"}'
    refused(target.ask("POST", f"{KINDS}/any", body, f"{JSON}; charset={charset}"), 415)
    for path, kind in (("/text", "Content-Type: text/plain"), ("/json", JSON), ("/form", FORM)):
        refused(target.ask("POST", READERS + path, body, f"{kind}; charset={charset}"), 400)


# Every way of reading a body, and what it is called there.
WAYS = [
    (f"{KINDS}/any", JSON), (f"{READERS}/read", JSON), (f"{READERS}/text", JSON),
    (f"{READERS}/json", JSON), (f"{READERS}/form", FORM),
]  # fmt: skip


def _deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


def _of_a_large_window(data: bytes) -> bytes:
    """What says that 128 MiB may have to be kept to unpack it."""
    packer = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 27})
    return packer.compress(data) + packer.flush()


PACKED: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "deflate": ("deflate", zlib.compress),
    "deflate without a head": ("deflate", _deflated),
    "br": ("br", brotli.compress),
    "zstd": ("zstd", zstd.compress),
    "zstd of a large window": ("zstd", _of_a_large_window),
}
# Of these one may follow another, and what they hold is all of it.
IN_MEMBERS = ("gzip", "zstd")


@pytest.mark.parametrize("packed", PACKED)
def test_a_bomb_is_refused_while_it_is_unpacked(target: Target, packed: str) -> None:
    encoding, pack = PACKED[packed]
    bomb = pack(b'{"a":"' + b"x" * 10_000_000 + b'"}')
    assert len(bomb) < 11_000
    before_kb = target.memory_kb("VmRSS")
    for path, kind in WAYS:
        refused(target.ask("POST", path, bomb, kind, f"Content-Encoding: {encoding}"), 413)
    assert target.memory_kb("VmHWM") - before_kb < 48 * 1024


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "GZIP", "br", "zstd"])
def test_what_cannot_be_unpacked_is_refused(target: Target, encoding: str) -> None:
    for path, kind in WAYS:
        for body in (b"garbage" * 9, gzip.compress(b"{}")[:-8] + b"\0" * 8):
            answer = target.ask("POST", path, body, kind, f"Content-Encoding: {encoding}")
            refused(answer, 400)


@pytest.mark.parametrize("packed", PACKED)
def test_what_is_packed_and_cut_is_refused_wherever_it_is_cut(target: Target, packed: str) -> None:
    encoding, pack = PACKED[packed]
    in_members = encoding in IN_MEMBERS
    whole = pack(b'{"aaa"') + pack(b':"bbb"}') if in_members else pack(b'{"aaa":"bbb"}')
    header = f"Content-Encoding: {encoding}"
    assert target.ask("POST", f"{KINDS}/any", whole, JSON, header).body == b"false"
    between = len(pack(b'{"aaa"')) if in_members else 0  # a whole one, and no JSON
    for length in range(1, len(whole)):
        refused(target.ask("POST", f"{KINDS}/any", whole[:length], JSON, header), 400)
        if length != between:
            answer = target.ask("POST", f"{READERS}/read", whole[:length], JSON, header)
            refused(answer, 400)
    for path, kind in WAYS:
        cut = pack(b'{"aaa":"bbb"}')[:-3]
        refused(target.ask("POST", path, cut, kind, header), 400)


@pytest.mark.parametrize(
    "encodings",
    [
        ["gzip, gzip"],
        ["gzip", "gzip"],
        ["gzip,identity"],
        ["br, br"],
        ["br, gzip"],
        ["zstd, zstd"],
        ["zstd", "br"],
        ["nonsense"],
        ["x-gzip"],
        ["x-zstd"],
    ],
)
def test_what_is_packed_otherwise_or_twice_is_refused_as_it_is(
    target: Target, encodings: list[str]
) -> None:
    bomb = gzip.compress(gzip.compress(b"x" * 10_000_000))
    for path, kind in WAYS:
        headers = [f"Content-Encoding: {each}" for each in encodings]
        refused(target.ask("POST", path, bomb, kind, *headers), 415)


def part(name: bytes, value: bytes, *headers: bytes) -> bytes:
    """One part of a form."""
    disposition = b'Content-Disposition: form-data; name="' + name + b'"'
    return b"\r\n".join((b"--b", disposition, *headers, b"", value, b""))


END = b"--b--\r\n"
BAD_PARTS = {
    "cut in its head": part(b"a", b"1")[:30],
    "cut in its value": part(b"a", b"1")[:-3],
    "nothing": b"",
    "another boundary": part(b"a", b"1").replace(b"--b", b"--c"),
    "no head": b"--b\r\nnonsense\r\n\r\nx\r\n" + END,
    "no UTF-8": part(b"a", b"\xff") + END,
    "unknown charset": part(b"_charset_", b"n" * 100) + part(b"a", b"1") + END,
    "unknown encoding": part(b"a", b"1", b"Content-Transfer-Encoding: nonsense") + END,
    "wrong base64": part(b"a", b"YWJ", b"Content-Transfer-Encoding: base64") + END,
    "nested": b"--b\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n--c\r\n\r\nx\r\n--c--\r\n"
    + END,
    "10,000 headers": b"--b\r\n" + b"X: 1\r\n" * 10_000 + b"\r\nx\r\n" + END,
    "long header": b"--b\r\nX: " + b"x" * 500_000 + b"\r\n\r\nx\r\n" + END,
    "10,000 parts": b"".join(part(b"a%d" % n, b"1") for n in range(10_000)) + END,
    "no name": b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n" + END,
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD_PARTS)
def test_parts_that_are_none_are_refused(target: Target, kind: str) -> None:
    refused(target.ask("POST", f"{READERS}/form", BAD_PARTS[kind], PARTS), 400, 413)
    answer = target.ask("POST", f"{READERS}/parts", BAD_PARTS[kind], PARTS)
    if answer.status != 200:  # who reads parts one by one may take more than a form can hold
        refused(answer, 400, 413)
    assert answer.took_s < WITHIN_S


@pytest.mark.parametrize(
    "kind", ["multipart/form-data", "multipart/form-data; boundary=" + "z" * 99]
)
def test_parts_without_a_boundary_are_refused(target: Target, kind: str) -> None:
    for path in ("/form", "/parts"):
        body = part(b"a", b"1") + END
        refused(target.ask("POST", READERS + path, body, f"Content-Type: {kind}"), 400)
    refused(target.ask("POST", f"{READERS}/parts", b"x", "Content-Type: text/plain"), 400)
    refused(target.ask("POST", f"{READERS}/parts", b"x"), 400)


@pytest.mark.parametrize("body", [b"&".join([b"a=1"] * 100_000), b"&" * 900_000 + b"a", b"%" * 9])
def test_thousands_of_fields_are_taken_or_refused(target: Target, body: bytes) -> None:
    answer = target.ask("POST", f"{READERS}/form", body, FORM)
    assert answer.took_s < WITHIN_S
    assert answer.status == 200 or refused(answer, 400, 413)


def test_thousands_of_parameters_are_taken_or_refused(target: Target) -> None:
    many = "&".join(f"a{n}=1" for n in range(900))
    assert target.ask("GET", f"{KINDS}/query?needed=1&{many}").status == 200
    assert len(json.loads(target.ask("GET", f"{KINDS}/labels?{many}").body)) == 900
    refused(target.ask("GET", f"{KINDS}/filter?min-age=1&{many}"), 422)
    wrong = "&".join(["sizes=x"] * 900)
    problem = refused(target.ask("GET", f"{KINDS}/query?needed=1&{wrong}"), 422)
    assert problem["detail"] == "900 fields are wrong; `errors` has 50 of them"
    refused(target.ask("GET", f"{KINDS}/query?" + "&" * 100_000), 414)
    refused(target.ask("GET", f"{KINDS}/headers", b"", *["X-Count: 1"] * 900), 431)
    refused(target.ask("GET", f"{KINDS}/headers", b"", "X-Count: 1", "X-Count: 2"), 422)


@pytest.mark.parametrize(
    "cookie",
    ["\x7f=;;;=", ";" * 8_000, "seen=" + "9" * 7_000, 'session="' + '\\"' * 3_500, "=" * 8_000],
)
def test_cookies_that_are_none_are_refused(target: Target, cookie: str) -> None:
    refused(target.ask("GET", f"{KINDS}/cookies", b"", f"Cookie: {cookie}"), 400, 422)


# Values, so many that 1 MB holds no more.
FILL = {
    "arrays": b"[]," * 330_000 + b"1",
    "objects": b"{}," * 330_000 + b"1",
    "numbers": b"1," * 500_000 + b"1",
    "texts": b'"x",' * 250_000 + b"1",
    "a text": b'"' + b"x" * 1_000_000 + b'"',
}


@pytest.mark.parametrize("kind", FILL)
def test_what_is_wrong_in_all_of_its_parts_costs_no_more(target: Target, kind: str) -> None:
    array = b"[" + FILL[kind] + b"]"
    for path, body in (
        ("wide", b'{"a": ' + array + b"}"),
        ("wide", array),
        ("wides", b'{"a": ' + array + b"}"),
        ("kinds", array),
        ("kinds", b'[{"kind": ' + array + b"}]"),
        ("trees", array),
        ("trees", b'[{"left": {"right": {"left": ' + array + b"}}}]"),
        ("addresses", array),
    ):
        problem = refused(target.ask("POST", f"{COSTLY}/{path}", body, JSON), 422)
        assert len(problem["errors"]) == 1 or kind == "a text"


def test_what_is_wrong_in_a_large_body_is_told_while_it_takes_no_time(target: Target) -> None:
    body = json.dumps({f"a{n}": n for n in range(99)} | {"text": "x" * 500_000}).encode()
    problem = refused(target.ask("POST", f"{COSTLY}/wide", body, JSON), 422)
    assert [each["pointer"] for each in problem["errors"]] == ["/a99"]


def test_a_large_body_that_is_right_is_taken(target: Target) -> None:
    wide = {f"a{n}": n for n in range(100)}
    for path, body in (
        ("wides", {f"k{n}": [wide] for n in range(700)}),
        ("kinds", [{"kind": n % 100, "number": n} for n in range(4_000)]),
        ("trees", [{"number": 1, "left": {"number": 2, "right": None}}] * 15_000),
    ):
        text = json.dumps(body).encode()
        assert len(text) > 100_000
        answer = target.ask("POST", f"{COSTLY}/{path}", text, JSON)
        assert answer.body == str(len(body)).encode()
    spelt = text.replace(b"2", b"2.0", 1)
    assert target.ask("POST", f"{COSTLY}/trees", spelt, JSON).status == 200


PRIME = 2**61 - 1  # Python's hash of a number is what is left of it, modulo this one
SAME_HASH: dict[str, Callable[[int], Any]] = {
    "numbers": lambda n: n * PRIME,
    "addresses": lambda n: str(IPv6Address(n * PRIME)),
    "pairs": lambda n: [1, n * PRIME],
    "by_key": lambda n: str(UUID(int=n * PRIME)),
    "prices": lambda n: str(n * PRIME),
}


@pytest.mark.parametrize("name", SAME_HASH)
def test_members_that_were_chosen_for_their_hash_are_refused(target: Target, name: str) -> None:
    def members(count: int, spread: int) -> Any:
        some = [SAME_HASH[name](n) for n in range(1, count)]
        some += [SAME_HASH[name](1)] * spread
        return dict.fromkeys(some, 1) if name in {"by_key", "prices"} else some

    for count, spread in ((16_000, 0), (20, 15_000)):
        body = json.dumps({name: members(count, spread)}).encode()
        problem = refused(target.ask("POST", f"{COSTLY}/hashed", body, JSON), 422)
        assert problem["errors"][0]["type"] in {"too_alike", "too_many_errors"}
    body = json.dumps({name: members(6, 15_000)}).encode()
    answer = target.ask("POST", f"{COSTLY}/hashed", body, JSON)
    assert sum(json.loads(answer.body)) == 5
    assert answer.took_s < WITHIN_S


def test_many_honest_members_are_taken(target: Target) -> None:
    body = json.dumps({"numbers": list(range(-20_000, 100_000))}).encode()
    answer = target.ask("POST", f"{COSTLY}/hashed", body, JSON)
    assert json.loads(answer.body)[0] == 120_000
    assert answer.took_s < WITHIN_S


def test_what_a_validator_cannot_compute_with_is_refused(target: Target) -> None:
    assert target.ask("POST", f"{COSTLY}/price", b'"1.005"', JSON).body == b'"1.00"'
    assert target.ask("GET", f"{COSTLY}/price?price=1.005").body == b'"1.00"'
    refused(target.ask("POST", f"{COSTLY}/price", b'"1e999999"', JSON), 422)
    refused(target.ask("GET", f"{COSTLY}/price?price=1e999999"), 422)
