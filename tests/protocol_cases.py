"""Requests on raw sockets, by the clause of docs/protocol.md that each tries.

What a server must not tell anybody is spelt SECRET.
"""

from dataclasses import dataclass

HOST = b"Host: x\r\n"
GET = b"GET /names/a HTTP/1.1\r\n" + HOST
LOOK = b"GET /look HTTP/1.1\r\n" + HOST
POST = b"POST /read HTTP/1.1\r\n" + HOST
UNREAD = b"POST /unread HTTP/1.1\r\n" + HOST
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
END = b"\r\n"
LAST = b"0\r\n\r\n"


@dataclass(frozen=True)
class Case:
    """What is sent, and what has to come back.

    Attributes:
        sent: the bytes.
        statuses: of the answers, in their order; where there is none, it is closed.
        goes_on: whether the connection answers another request then; else it is closed. None where
            it is answered amid its body: what comes in one packet with the body's end is not.
        says: stands in the last answer's body.
        hides: stands in no answer's body.
        head: stands in the last answer's head, in lower case.
        bodiless: whether the last answer is one to HEAD.
        in_pieces: whether it is the same however it comes in packets.
        lacks: stands nowhere in the last answer's head, in lower case.
        shuts: whether the client says then that nothing more will come.
    """

    sent: bytes
    statuses: tuple[int, ...]
    goes_on: bool | None = False
    says: bytes = b""
    hides: bytes = b"SECRET"
    head: bytes = b""
    bodiless: bool = False
    in_pieces: bool = True
    lacks: bytes = b""
    shuts: bool = False


def good(sent: bytes, *, says: bytes = b"", status: int = 200, **more: object) -> Case:
    """It is answered, and the connection goes on."""
    return Case(sent, (status,), goes_on=True, says=says, **more)  # type: ignore[arg-type]


def bad(sent: bytes, status: int = 400, *, in_pieces: bool = True) -> Case:
    """It is refused, once, and the connection ends."""
    return Case(sent, (status,), in_pieces=in_pieces)


def line(text: bytes, host: bytes = HOST) -> bytes:
    """A request of one line, and its host."""
    return text + END + host + END


def hosts(*values: bytes) -> dict[str, bytes]:
    """Requests with these hosts, by what they are called in a test."""
    return {
        repr(value[:40])[2:-1] or "empty": b"GET /look HTTP/1.1\r\nHost: " + value + END + END
        for value in values
    }


def with_field(name: bytes, *values: bytes, body: bytes) -> dict[str, bytes]:
    """POSTs with this header, by its value."""
    return {
        repr(value[:40])[2:-1] or "empty": POST + name + b": " + value + END + END + body
        for value in values
    }


def refused(requests: dict[str, bytes], status: int = 400) -> dict[str, Case]:
    """All of them are refused."""
    return {name: bad(sent, status) for name, sent in requests.items()}


def answered(requests: dict[str, bytes], says: bytes = b"") -> dict[str, Case]:
    """All of them are answered."""
    return {name: good(sent, says=says) for name, sent in requests.items()}


def paths(status: int, *targets: bytes, says: bytes = b"") -> dict[str, Case]:
    """GETs of these, which are answered with this status."""
    return {
        repr(target)[2:-1]: good(line(b"GET " + target + b" HTTP/1.1"), status=status, says=says)
        for target in targets
    }


def chunks(*bodies: bytes) -> dict[str, bytes]:
    """Chunked bodies, by their beginning."""
    return {repr(body[:40])[2:-1]: CHUNKED + body for body in bodies}


CASES: dict[str, dict[str, Case]] = {
    # The request line and the version.
    "version-other": {
        name: bad(line(b"GET / HTTP/" + version), 505)
        for name, version in {"0.9": b"0.9", "1.2": b"1.2", "2.0": b"2.0", "3.0": b"3.0"}.items()
    }
    | {
        "none": bad(b"GET /\r\n\r\n", 505),
        "preface of HTTP/2": bad(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, in_pieces=False),
        "RTSP": bad(line(b"OPTIONS * RTSP/1.0"), 505),
        "RTSP as 1.1": bad(line(b"GET /look RTSP/1.1"), 505),
    },
    "version-malformed": refused(
        {
            name: line(b"GET / " + version)
            for name, version in {
                "lower case": b"http/1.1",
                "two digits": b"HTTP/1.10",
                "two digits before": b"HTTP/11.1",
                "no dot": b"HTTP/11",
                "no number": b"HTTP/SECRET",
                "another name": b"SECRET/1.1",
                "space after": b"HTTP/1.1 ",
            }.items()
        }
    ),
    "version-1.0": {
        "is answered as 1.1, and closed": Case(
            b"GET /look HTTP/1.0\r\n\r\n", (200,), head=b"http/1.1 200 ok\r\n"
        ),
        "keeps alive where asked": good(
            b"GET /look HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", head=b"connection: keep-alive"
        ),
        "one behind another, not kept alive": Case(
            b"GET /look HTTP/1.0\r\n\r\n" * 2, (200,), in_pieces=False
        ),
        "a stream ends with the connection": Case(
            b"GET /stream HTTP/1.0\r\n\r\n", (200,), says=b"streamed", lacks=b"transfer-encoding"
        ),
        "so it does where it is to be kept alive": Case(
            b"GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
            (200,),
            says=b"streamed",
            lacks=b"keep-alive",
        ),
        "`close` beats `keep-alive`": Case(
            b"GET /look HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n",
            (200,),
            lacks=b"keep-alive",
        ),
        "`Proxy-Connection` is no `Connection`": Case(
            b"GET /look HTTP/1.0\r\nProxy-Connection: keep-alive\r\n\r\n",
            (200,),
            lacks=b"keep-alive",
        ),
        "nor beside one": Case(
            b"GET /look HTTP/1.0\r\nConnection: x\r\nProxy-Connection: keep-alive\r\n\r\n",
            (200,),
            lacks=b"keep-alive",
        ),
        "nor takes it anything away": good(
            b"GET /look HTTP/1.0\r\nConnection: x, Keep-Alive\r\nProxy-Connection: close\r\n\r\n",
            head=b"connection: keep-alive",
        ),
    },
    "line-malformed": refused(
        {
            "no HTTP": b"SECRET\r\n\r\n",
            "TLS": b"\x16\x03\x01\x02\x00\x01\x00SECRET",
            "tabs": line(b"GET\t/\tHTTP/1.1"),
            "space before": line(b" GET / HTTP/1.1"),
            "space in the target": line(b"GET /a SECRET HTTP/1.1"),
            "control in the target": line(b"GET /\x01SECRET HTTP/1.1"),
            "NUL in the target": line(b"GET /\0SECRET HTTP/1.1"),
            "DEL in the target": line(b"GET /\x7fSECRET HTTP/1.1"),
            "8 bits in the target": line(b"GET /\xffSECRET HTTP/1.1"),
            "UTF-8 in the target": line(b"GET /\xc3\xa9SECRET HTTP/1.1"),
        }
    ),
    "line-empty-before": {
        "CRLF": good(END + LOOK + END),
        "some": good(END * 5 + LOOK + END),
    },
    "line-too-long": {
        "path": bad(line(b"GET /" + b"SECRET" * 2000 + b" HTTP/1.1"), 414),
        "query": bad(line(b"GET /look?" + b"SECRET" * 2000 + b" HTTP/1.1"), 414),
        "never ends": bad(b"GET /" + b"SECRET" * 2000, 414),
        "as long as it may be": good(line(b"GET /look?" + b"a" * 8184 + b" HTTP/1.1")),
    },
    # Methods.
    "method-unknown": {
        name: bad(line(method + b" /look HTTP/1.1"), 501, in_pieces=False)
        for name, method in {
            "made up": b"SECRET",
            "lower case": b"get",
            "longer": b"GETX",
            "long": b"A" * 3000,
            "of Icecast": b"SOURCE",
        }.items()
    }
    | {
        "no token": bad(line(b"G@T /look HTTP/1.1")),
        "Icecast": bad(line(b"SOURCE /look ICE/1.0"), 501),
    },
    "method-never": {
        "CONNECT": bad(line(b"CONNECT x:80 HTTP/1.1"), 501),
        "CONNECT of a path": bad(line(b"CONNECT /look HTTP/1.1"), 501),
        "CONNECT with more behind": bad(line(b"CONNECT x:80 HTTP/1.1") + LOOK + END, 501),
        "TRACE": bad(line(b"TRACE /look HTTP/1.1") + b"", 501),
        "TRACE with a secret": bad(b"TRACE /look HTTP/1.1\r\nHost: x\r\nX: SECRET\r\n\r\n", 501),
    },
    "method-not-here": {
        name: good(line(method + b" /look HTTP/1.1"), status=405, head=b"allow: get, head, options")
        for name, method in {"POST": b"POST", "DELETE": b"DELETE", "PROPFIND": b"PROPFIND"}.items()
    },
    "method-head": {
        "a handler": good(line(b"HEAD /look HTTP/1.1"), bodiless=True, head=b"content-length: "),
        "answered directly": good(
            line(b"HEAD /plain HTTP/1.1"), bodiless=True, head=b"content-length: 11"
        ),
        "an error": good(line(b"HEAD /nowhere HTTP/1.1"), status=404, bodiless=True),
        "a refusal": Case(b"HEAD / HTTP/1.1\r\nHost: a b\r\n\r\n", (400,), bodiless=True),
    },
    "method-options": {
        "of all": good(line(b"OPTIONS * HTTP/1.1"), status=204, head=b"allow: get, head, post"),
        "of one": good(line(b"OPTIONS /look HTTP/1.1"), status=204, head=b"allow: get, head, opt"),
        "of none": good(line(b"OPTIONS /* HTTP/1.1"), status=404),
    },
    # Targets.
    "target-absolute": {
        "its host is the host": good(
            line(b"GET http://other:81/look HTTP/1.1"), says=b'"url":"http://other:81/look"'
        ),
        "without a path": good(line(b"GET http://other HTTP/1.1"), says=b"Welcome"),
        "without a path, with a query": good(line(b"GET http://other?a HTTP/1.1"), says=b"Welcome"),
        "in capitals": good(line(b"GET HTTP://OTHER/look HTTP/1.1"), says=b"/look"),
        "with an address": good(line(b"GET http://[::1]:81/look HTTP/1.1"), says=b"[::1]"),
        "of another name than `Host`": good(
            b"GET http://a/look HTTP/1.1\r\nHost: b\r\n\r\n", says=b'"url":"http://a/look"'
        ),
        "and no host": bad(b"GET http://other/look HTTP/1.1\r\n\r\n"),
        "and a bad host": bad(b"GET http://other/look HTTP/1.1\r\nHost: a b\r\n\r\n"),
    },
    "target-https": {
        "without TLS": bad(line(b"GET https://x/look HTTP/1.1"), 421),
        "in capitals": bad(line(b"GET HTTPS://x/look HTTP/1.1"), 421),
        "in HTTP/1.0": bad(line(b"GET https://x/look HTTP/1.0"), 421),
    },
    "target-malformed": refused(
        {
            name: line(b"GET " + target + b" HTTP/1.1")
            for name, target in {
                "user": b"http://SECRET@other/look",
                "user and password": b"http://user:SECRET@other/look",
                "empty user": b"http://@other/look",
                "port": b"http://other:SECRET/look",
                "port too large": b"http://other:99999/look",
                "no host": b"http:///look",
                "a port for a host": b"http://:80/look",
                "no slashes": b"http:look",
                "another scheme": b"ftp://other/look",
                "urn": b"urn:SECRET",
                "no bracket": b"http://[::1/look",
                "list": b"http://a,b/look",
                "authority": b"x:80",
                "star": b"*",
                "no slash": b"look",
                "query alone": b"?a",
                "fragment": b"/look#SECRET",
                "fragment of what is answered directly": b"/plain#SECRET",
                "fragment behind a query": b"/look?a#SECRET",
                "fragment behind a host": b"http://other/look#SECRET",
            }.items()
        }
    ),
    "path-same": paths(200, b"/names/%61", b"/name%73/a", b"/n%61mes/a", says=b'{"name":"a"}')
    | paths(200, b"/names/%2f", says=b'{"name":"/"}')
    | paths(200, b"/names/a%2Fb", says=b'{"name":"a/b"}')
    | paths(200, b"/names/%00", says=b'{"name":"\\u0000"}')
    | paths(200, b"/names/%c3%a9", says='{"name":"é"}'.encode())
    | paths(200, b"/names/a%0d%0aX:%20y", says=b'{"name":"a\\r\\nX: y"}')
    | paths(200, b"/plain?a", b"/plain?%", b"/plain?%ff", says=b'{"a":"one"}'),
    "path-other": paths(
        404,
        *(b"/plain/", b"//plain", b"/./plain", b"/names/../plain", b"/names/%2e%2e/plain"),
        *(b"/%2e%2e/plain", b"/..%2fplain", b"/%2fplain", b"/plain%00", b"/plain%20", b"/PLAIN"),
        *(b"/plain%2f", b"/plain;a=b", b"/plain%3fa", b"/plain%23", b"/names\\a", b"/names//a"),
        *(b"/names/..", b"/names/%2e", b"/names/", b"//", b"/names/a/", b"/plain%0a", b"/.plain"),
        *(b"http://x//plain", b"http://x/names/../plain", b"/livez%00", b"/livez/."),
    ),
    "path-undecodable": paths(
        400,
        *(b"/names/%ff", b"/names/%", b"/names/%zz", b"/names/%c0%af", b"/names/%ed%a0%80"),
        *(b"/plain%", b"/%ff", b"/names/%4", b"/names/%u0061", b"/names/%f8%88%80%80%80"),
    ),
    # Host.
    "host-missing": {
        "1.1": bad(b"GET /look HTTP/1.1\r\n\r\n"),
        "1.1, answered directly": bad(b"GET /plain HTTP/1.1\r\n\r\n"),
        "1.0": Case(b"GET /look HTTP/1.0\r\n\r\n", (200,)),
    },
    "host-twice": refused(
        {
            "the same": b"GET /look HTTP/1.1\r\n" + HOST + HOST + END,
            "another": b"GET /look HTTP/1.1\r\n" + HOST + b"host: SECRET\r\n\r\n",
            "1.0": b"GET /look HTTP/1.0\r\n" + HOST + HOST + END,
        }
    ),
    "host-invalid": refused(
        hosts(
            *(b"", b"a,SECRET", b"a, SECRET", b"SECRET@a", b"u:SECRET@a", b"a/SECRET", b"a:SECRET"),
            *(b"a:99999", b"a:-1", b"a:+80", b"a:80:80", b"a:000080", b"[::1", b"[SECRET]", b"[]"),
            *(b"[::1]x", b"::1", b"[1.2.3.4]", b"[v1.a]", b"[::1%25lo]", b"a b", b"a?b", b"a#b"),
            *(b"http://a", b"a%zz", b"a\\b", b"<a>", b'"a"', b"a;b", b":80", b"\xffa", b"\xc3\xa9"),
            *(b"x" * 300, b"a\tb", b"*", b"a=b", b"(a)"),
        )
    )
    | {
        "1.0": bad(b"GET /look HTTP/1.0\r\nHost: a b\r\n\r\n"),
        "answered directly": bad(b"GET /plain HTTP/1.1\r\nHost: SECRET@a\r\n\r\n"),
    },
    "host-valid": answered(
        hosts(
            *(b"a", b"a.b-c", b"a:", b"a:80", b"127.0.0.1", b"[::1]", b"[::1]:80", b"[::1.2.3.4]"),
            *(b"a_b", b"A.example.", b" a ", b"a\t", b"xn--a", b"a%41", b"~"),
        )
    ),
    # Fields.
    "field-line-end": refused(
        {
            "LF everywhere": b"GET /look HTTP/1.1\nHost: x\n\n",
            "LF after the first line": b"GET /look HTTP/1.1\nHost: x\r\n\r\n",
            "LF after a field": GET[:-2] + b"\nX: SECRET\r\n\r\n",
            "LF at the end": GET + b"\n",
            "CR after a field": GET[:-2] + b"\rX: SECRET\r\n\r\n",
            "CR in a value": GET + b"X: a\rSECRET\r\n\r\n",
            "CR in a name": GET + b"X\rSECRET: a\r\n\r\n",
            "CR CR LF": GET + b"X: SECRET\r\r\n\r\n",
        }
    ),
    "field-fold": refused(
        {
            "space": GET + b"X: a\r\n SECRET\r\n\r\n",
            "tab": GET + b"X: a\r\n\tSECRET\r\n\r\n",
            "first": b"GET /look HTTP/1.1\r\n X: SECRET\r\nHost: x\r\n\r\n",
            "of a host": b"GET /look HTTP/1.1\r\nHost:\r\n SECRET\r\n\r\n",
        }
    ),
    "field-name": refused(
        {
            "no colon": GET + b"SECRET\r\n\r\n",
            "space before the colon": GET + b"SECRET : a\r\n\r\n",
            "tab before the colon": GET + b"SECRET\t: a\r\n\r\n",
            "space in it": GET + b"SEC RET: a\r\n\r\n",
            "empty": GET + b": SECRET\r\n\r\n",
            "8 bits": GET + b"\xffSECRET: a\r\n\r\n",
            "NUL": GET + b"SECRET\0: a\r\n\r\n",
            "bracket": GET + b"SECRET[]: a\r\n\r\n",
        }
    ),
    "field-value": refused(
        {
            name: GET + b"X: a" + char + b"SECRET\r\n\r\n"
            for name, char in {
                "NUL": b"\0",
                "control": b"\x01",
                "DEL": b"\x7f",
                "BS": b"\b",
            }.items()
        }
    )
    | answered(
        {
            "empty": GET + b"X:\r\n\r\n",
            "tab in it": GET + b"X: a\tb\r\n\r\n",
            "8 bits": GET + b"X: \xff\r\n\r\n",
            "no space": GET + b"X:a\r\n\r\n",
            "space around": GET + b"X: \t a \t \r\n\r\n",
            "not known": GET + b"X-Whatever-It-Is: a\r\n\r\n",
        }
    ),
    "field-too-large": {
        "value": bad(GET + b"X: " + b"SECRET" * 2000 + b"\r\n\r\n", 431),
        "name": bad(GET + b"SECRET" * 2000 + b": a\r\n\r\n", 431),
        "value that never ends": bad(GET + b"X: " + b"SECRET" * 2000, 431),
        "count": bad(GET + b"X: SECRET\r\n" * 300 + END, 431),
        "total": bad(GET + b"X: " + (b"a" * 5000 + b"\r\nX: ") * 10 + b"SECRET\r\n\r\n", 431),
        "total that never ends": bad(GET + (b"X: " + b"a" * 5000 + END) * 10, 431),
        "much, and not too much": good(GET + (b"X: " + b"a" * 5000 + END) * 5 + END),
    },
    # Framing.
    "length-invalid": refused(
        with_field(
            b"Content-Length",
            *(b"+6", b"-6", b"0x6", b"6, 6", b"6,6", b"6 6", b"6.0", b"", b"6;", b"6\x0b", b"6e0"),
            *(b"\xd9\xa2", b"\xef\xbc\x92", b"\xb2", b"6\0", b"0b11", b"6;6", b"'6'", b"06_0"),
            *(b"SECRET", b"\xc2\xb2", b"99999999999999999999999", b"18446744073709551616", b"6_0"),
            body=b"SECRET",
        )
    )
    | refused(
        {
            "space before the colon": POST + b"Content-Length : 6\r\n\r\nSECRET",
            "fold": POST + b"Content-Length:\r\n 6\r\n\r\nSECRET",
        }
    ),
    "length-twice": refused(
        {
            "the same": POST + b"Content-Length: 6\r\n" * 2 + b"\r\nSECRET",
            "another": POST + b"Content-Length: 6\r\nContent-Length: 1\r\n\r\nSECRET",
            "in other letters": POST + b"Content-Length: 6\r\ncontent-length: 6\r\n\r\nSECRET",
        }
    ),
    "length-valid": answered(
        with_field(b"Content-Length", b"2", b" 2 ", b"2\t", b"02", body=b"ab"), says=b'"count":2'
    )
    | {
        "zeros before it": good(
            POST + b"Content-Length: " + b"0" * 40 + b"2\r\n\r\nab", says=b'"count":2'
        ),
        "more zeros than Python reads": good(
            POST + b"Content-Length: " + b"0" * 4500 + b"2\r\n\r\nab", says=b'"count":2'
        ),
        "none is none": good(POST + END, says=b'"count":0'),
        "of a GET": good(LOOK + b"Content-Length: 2\r\n\r\nab"),
        "of a GET that is answered directly": good(
            b"GET /plain HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab"
        ),
        "not read": good(UNREAD + b"Content-Length: 2\r\n\r\nab"),
        "in a name that is another": good(POST + b"Content_Length: 2\r\n\r\n", says=b'"count":0'),
    },
    "length-too-large": {
        "read": bad(POST + b"Content-Length: 2000000\r\n\r\nSECRET", 413),
        "not read": bad(UNREAD + b"Content-Length: 2000000\r\n\r\nSECRET", 413),
        "63 bits": bad(POST + b"Content-Length: 9223372036854775807\r\n\r\nSECRET", 413),
        "64 bits": bad(POST + b"Content-Length: 18446744073709551615\r\n\r\nSECRET", 413),
        "told before it is sent": bad(
            POST + b"Expect: 100-continue\r\nContent-Length: 2000000\r\n\r\n", 413
        ),
        "chunked": Case(
            CHUNKED + b"1e8480\r\n" + b"a" * 2_000_000 + b"\r\n0\r\n\r\n", (413,), goes_on=None
        ),
    },
    "length-and-chunked": refused(
        {
            "length first": POST
            + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nSECRET",
            "chunked first": POST
            + b"Transfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\nSECRET",
            "not read": UNREAD + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\nSECRET",
        }
    ),
    "coding-unknown": refused(
        with_field(
            b"Transfer-Encoding",
            *(b"gzip, chunked", b"identity, chunked", b"SECRET, chunked", b"gzip,chunked"),
            *(b",chunked", b""),
            body=LAST,
        ),
        501,
    ),
    "content-coding": refused(
        with_field(
            b"Content-Encoding",
            *(
                b"SECRET",
                b"gzip, gzip",
                b"gzip,identity",
                b"identity, gzip",
                b"gzip;q=1",
                b"x-gzip",
            ),
            b"compress",
            body=b"",
        )
        | {
            "twice": POST + b"Content-Encoding: gzip\r\nContent-Encoding: gzip\r\n\r\n",
            "with a length": POST + b"Content-Encoding: SECRET\r\nContent-Length: 2\r\n\r\nab",
        },
        415,
    )
    | answered(
        with_field(
            b"Content-Encoding", b"identity", b"IDENTITY", b"gzip", b"Deflate", b"", b",", body=b""
        )
    ),
    "coding-invalid": refused(
        with_field(
            b"Transfer-Encoding",
            *(b"gzip", b"chunked, gzip", b"chunked, chunked", b"identity", b"xchunked", b"SECRET"),
            *(b"chunkedx", b"chunked;q=1", b'"chunked"', b"chunked,", b"chun ked", b"\x0bchunked"),
            *(b"chunked\x0b", b"trailers", b"chunked ,", b"chunked\xff", b"chunked chunked"),
            body=LAST,
        )
    )
    | refused(
        {
            "twice": CHUNKED[:-2] + b"Transfer-Encoding: chunked\r\n\r\n" + LAST,
            "twice, the first unknown": POST
            + b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
            + LAST,
            "twice, the last unknown": CHUNKED[:-2] + b"Transfer-Encoding: identity\r\n\r\n" + LAST,
            "1.0": b"POST /read HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n" + LAST,
            "fold": POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n" + LAST,
            "space before the colon": POST + b"Transfer-Encoding : chunked\r\n\r\n" + LAST,
        }
    ),
    "coding-valid": answered(
        with_field(
            b"Transfer-Encoding",
            *(b"chunked", b"Chunked", b"CHUNKED", b" chunked", b"\tchunked", b"chunked "),
            body=b"2\r\nab\r\n" + LAST,
        ),
        says=b'"count":2',
    )
    | {
        "not read": good(
            UNREAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n" + LAST, in_pieces=False
        ),
        "of a GET": good(LOOK + b"Transfer-Encoding: chunked\r\n\r\n" + LAST),
    },
    "chunk-valid": answered(
        chunks(
            b"2\r\nab\r\n" + LAST,
            b"02\r\nab\r\n" + LAST,
            b"1\r\na\r\n1\r\nb\r\n" + LAST,
            b"2\r\nab\r\n000\r\n\r\n",
            b"2;a=b\r\nab\r\n" + LAST,
            b"2;a\r\nab\r\n" + LAST,
            b'2;a="b;c"\r\nab\r\n' + LAST,
            b"2\r\nab\r\n0;a=b\r\n\r\n",
            b"0" * 50 + b"2\r\nab\r\n" + b"0" * 50 + b"\r\n\r\n",
            b'2;a="\\"b\\\\"\r\nab\r\n' + LAST,
            b'2;a="\xff";b\r\nab\r\n' + LAST,
            b"2;" + b"a" * 70_000 + b"\r\nab\r\n" + LAST,
        ),
        says=b'"count":2',
    ),
    "chunk-invalid": refused(
        chunks(
            *(b"SECRET\r\n", b"0x2\r\nab\r\n" + LAST, b"+2\r\nab\r\n" + LAST, b"-2\r\nab\r\n"),
            *(b" 2\r\nab\r\n" + LAST, b"2 \r\nab\r\n" + LAST, b"2\t\r\nab\r\n", b"\r\nab\r\n"),
            *(b"2\nab\r\n" + LAST, b"2\rab\r\n" + LAST, b"2\r\nab\n" + LAST, b"2\r\nabSECRET"),
            *(b"2\r\nab0\r\n\r\n", b"2\r\nab\r\n0\n\n", b"2\r\nab\r\n0\r\n\n", b"2_0\r\nab\r\n"),
            *(b'2;a="b\r\nab\r\n' + LAST, b"2;\r\nab\r\n" + LAST, b"2;a=b\nab\r\n" + LAST),
            *(b"2;a\0b\r\nab\r\n" + LAST, b"2 a\r\nab\r\n" + LAST, b"2\r\nab\r\n\r\n0\r\n\r\n"),
            *(b"2;a=\rb\r\nab\r\n" + LAST, b'2;a="\r"\r\nab\r\n' + LAST, b"2\r\rab\r\n" + LAST),
            *(b'2;a="\r\n0\r\n\r\n"\r\nab\r\n' + LAST, b'2;a="\nb"\r\nab\r\n' + LAST),
            *(b"2 ; a = b\r\nab\r\n" + LAST, b"2;a =b\r\nab\r\n" + LAST, b"2;a= b\r\nab\r\n"),
            *(b"\xd9\xa2\r\nab\r\n" + LAST, b"0X2\r\nab\r\n" + LAST, b"2h\r\nab\r\n" + LAST),
            *(b"fffffffffffffffff\r\nab\r\n" + LAST, b"10000000000000002\r\nab\r\n" + LAST),
        )
    )
    | refused({"not read": UNREAD + b"Transfer-Encoding: chunked\r\n\r\nSECRET\r\n"}),
    "chunk-flood": {
        "one extension": bad(CHUNKED + b"1;" + b"a" * 1_500_000),
        "many extensions": bad(CHUNKED + (b"1;" + b"a" * 500 + b"\r\nb\r\n") * 4000),
        "small chunks": good(CHUNKED + b"1\r\na\r\n" * 300_000 + LAST, says=b'"count":300000'),
    },
    "trailer": {
        "is no header": good(CHUNKED + b"0\r\nX-Secret: SECRET\r\n\r\n", hides=b"SECRET"),
        "is none of the next request either": Case(
            CHUNKED + b"0\r\nX-Secret: SECRET\r\n\r\n" + LOOK + END,
            (200, 200),
            goes_on=True,
            in_pieces=False,
        ),
        "nor of the one after it": Case(
            CHUNKED + b"0\r\nX-Secret: SECRET\r\n\r\n" + (LOOK + END) * 2,
            (200, 200, 200),
            goes_on=True,
            in_pieces=False,
        ),
        "is no host": good(CHUNKED + b"0\r\nX: a\r\nX-Secret: SECRET\r\n\r\n"),
        "is no credential": good(CHUNKED + b"0\r\nAuthorization: SECRET\r\n\r\n"),
        "without a colon": bad(CHUNKED + b"0\r\nSECRET\r\n\r\n"),
        "with a space before the colon": bad(CHUNKED + b"0\r\nSECRET : a\r\n\r\n"),
        "folded": bad(CHUNKED + b"0\r\nX: a\r\n SECRET\r\n\r\n"),
        "with a NUL": bad(CHUNKED + b"0\r\nX: \0SECRET\r\n\r\n"),
        "with a length": bad(CHUNKED + b"0\r\nContent-Length: 6\r\n\r\nSECRET"),
        "with a coding": bad(CHUNKED + b"0\r\nTransfer-Encoding: chunked\r\n\r\nSECRET"),
    },
    "incomplete": {
        name: Case(sent, (), shuts=True)
        for name, sent in {
            "head": b"GET /look HTTP/1.1\r\nHos",
            "body": POST + b"Content-Length: 6\r\n\r\nSEC",
            "chunk": CHUNKED + b"6\r\nSEC",
            "no last chunk": CHUNKED + b"2\r\nab\r\n",
            "no last line": CHUNKED + b"2\r\nab\r\n0\r\n",
        }.items()
    },
    # What else a request may say.
    "range": {
        "of bytes": good(
            b"GET /plain HTTP/1.1\r\nHost: x\r\nRange: bytes=0-1\r\n\r\n",
            says=b'{"a":"one"}',
            lacks=b"content-range",
        ),
        "beyond it": good(LOOK + b"Range: bytes=9999999-\r\n\r\n"),
        "none": good(LOOK + b"Range: nonsense\r\nIf-Range: x\r\n\r\n"),
    },
    "content-range": {
        "of a PUT": bad(
            b"PUT /put HTTP/1.1\r\nHost: x\r\nContent-Range: bytes 0-1/6\r\n"
            b"Content-Length: 2\r\n\r\nab"
        ),
        "of a POST is nothing": good(
            POST + b"Content-Range: bytes 0-1/6\r\nContent-Length: 2\r\n\r\nab", says=b'"count":2'
        ),
    },
    "condition": {
        "of what has no tags": good(LOOK + b'If-None-Match: "a"\r\nIf-Match: "a"\r\n\r\n'),
        "no date": good(LOOK + b"If-Modified-Since: nonsense\r\n\r\n"),
    },
    "accept": {
        "another": good(LOOK + b"Accept: text/html;q=1, */*;q=0\r\n\r\n"),
        "nonsense": good(LOOK + b"Accept: ;;;,,,\xff\r\n\r\n"),
        "charset and language": good(
            LOOK + b"Accept-Charset: none\r\nAccept-Language: *;q=0\r\n\r\n"
        ),
        "no coding at all": good(
            LOOK + b"Accept-Encoding: identity;q=0, gzip\r\n\r\n", lacks=b"content-encoding"
        ),
        "what is looked at": good(line(b"GET /livez HTTP/1.1"), head=b"\r\nvary: accept\r\n"),
    },
    "list-empty": {
        "close": Case(LOOK + b"Connection: , ,close, \r\n\r\n", (200,), head=b"connection: close"),
        "nothing": good(LOOK + b"Connection: ,, ,\r\n\r\n"),
    },
    "te": {
        "codings": good(
            b"GET /stream HTTP/1.1\r\nHost: x\r\nTE: gzip, trailers\r\nConnection: TE\r\n\r\n",
            head=b"transfer-encoding: chunked\r\n",
        ),
        "chunked, which is none": good(LOOK + b"TE: chunked\r\n\r\n"),
    },
    # Connections.
    "pipelining": {
        "three": Case((LOOK + END) * 3, (200, 200, 200), goes_on=True),
        "three that are answered directly": Case(
            b"GET /plain HTTP/1.1\r\nHost: x\r\n\r\n" * 3, (200, 200, 200), goes_on=True
        ),
        "forty": Case((LOOK + END) * 40, (200,) * 40, goes_on=True),
        "CRLFs between them": Case(LOOK + END * 3 + LOOK + END, (200, 200), goes_on=True),
        "with bodies": Case((POST + b"Content-Length: 2\r\n\r\nab") * 2, (200, 200), goes_on=True),
        "with chunks": Case(
            (CHUNKED + b"2\r\nab\r\n" + LAST) * 3, (200, 200, 200), goes_on=True, in_pieces=False
        ),
        "a good one before a bad one": Case(LOOK + END + b"SECRET\r\n\r\n", (200, 400)),
        "a good one with a body before a bad one": Case(
            POST + b"Content-Length: 2\r\n\r\nabSECRET\r\n\r\n", (200, 400), in_pieces=False
        ),
        "a good one before one of no host": Case(
            LOOK + END + b"GET / HTTP/1.1\r\n\r\n" + LOOK + END, (200, 400)
        ),
        "nothing behind a bad one": Case(b"SECRET\r\n\r\n" + LOOK + END, (400,)),
    },
    "close": {
        "is done": Case(LOOK + b"Connection: close\r\n\r\n", (200,), head=b"connection: close"),
        "nothing is answered behind it": Case(
            (LOOK + b"Connection: close\r\n\r\n") * 2,
            (200,),
            head=b"connection: close",
            in_pieces=False,
        ),
        "in a list": Case(
            LOOK + b"Connection: foo, Close\r\n\r\n" + LOOK + END, (200,), in_pieces=False
        ),
        "beats keep-alive": Case(LOOK + b"Connection: keep-alive, close\r\n\r\n", (200,)),
        "keep-alive": good(LOOK + b"Connection: keep-alive\r\n\r\n"),
    },
    "expect": {
        "a body": Case(
            POST + b"Expect: 100-Continue\r\nContent-Length: 2\r\n\r\nab",
            (100, 200),
            goes_on=True,
            says=b'"count":2',
        ),
        "another": good(POST + b"Expect: SECRET\r\nContent-Length: 2\r\n\r\nab", status=417),
        "in HTTP/1.0": Case(
            b"POST /read HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab", (200,)
        ),
        "no host": bad(b"POST /read HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"),
    },
    "upgrade": {
        "h2c is ignored": Case(
            LOOK + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n",
            (200,),
            head=b"connection: close",
        ),
        "h2c, and a request behind it": Case(
            LOOK + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n" + LOOK + END,
            (200,),
            head=b"connection: close",
        ),
        "h2c with a body": Case(
            POST + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nab",
            (200,),
            says=b'"count":2',
        ),
        "where none is": Case(
            LOOK + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n" + LOOK + END,
            (200, 200),
            goes_on=True,
        ),
        "without `Connection`": Case(
            LOOK + b"Upgrade: websocket\r\n\r\n" + LOOK + END, (200, 200), goes_on=True
        ),
        "is none in HTTP/1.0": Case(
            b"GET /look HTTP/1.0\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", (200,)
        ),
    },
    # Answers.
    "answer-head": {
        "has a date": good(LOOK + END, head=b"\r\ndate: "),
        "has a date, directly": good(line(b"GET /plain HTTP/1.1"), head=b"\r\ndate: "),
        "names no version": good(LOOK + END, head=b"\r\nserver: petsage\r\n"),
        "a refusal has a date": Case(
            b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", (400,), head=b"\r\ndate: "
        ),
        "no length where there is no body": good(
            line(b"OPTIONS /look HTTP/1.1"), status=204, lacks=b"content-length"
        ),
        "nor a coding": good(
            line(b"OPTIONS /look HTTP/1.1"), status=204, lacks=b"transfer-encoding"
        ),
        "a stream is chunked": good(
            line(b"GET /stream HTTP/1.1"), head=b"transfer-encoding: chunked", says=b"streamed"
        ),
    },
}
"""By clause, and by what each is called."""
