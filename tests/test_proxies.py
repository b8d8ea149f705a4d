"""Who asked: what trusted proxies say is believed, and nobody else."""

import asyncio
import time

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from petsage.errors import SettingsError
from petsage.proxies import Origin, Proxies
from petsage.settings import load_settings

FEATURE = '''
    """Says who asked."""
    from aiohttp import web

    from petsage import Feature, Routes

    routes = Routes()


    @routes.get("/who")
    async def who(request: web.Request) -> dict[str, str | None]:
        """Who."""
        return {"remote": request.remote, "scheme": request.scheme, "host": request.host,
                "url": str(request.url)}


    @routes.get("/plain")
    async def plain() -> dict[str, str]:
        """Nothing."""
        return {}


    feature = Feature(routes, mount="")
'''

INNER = "10.0.0.2"  # a trusted proxy before the one that asks

# name: headers, and what is believed of them.
SAID = {
    "nothing": ({}, None),
    "one address": ({"X-Forwarded-For": "1.2.3.4"}, Origin("1.2.3.4")),
    "what the client wrote before": ({"X-Forwarded-For": "6.6.6.6, 1.2.3.4"}, Origin("1.2.3.4")),
    "two proxies": ({"X-Forwarded-For": f"6.6.6.6, 1.2.3.4, {INNER}"}, Origin("1.2.3.4")),
    "proxies alone": ({"X-Forwarded-For": f"10.0.0.9, {INNER}"}, Origin("10.0.0.9")),
    "all three": (
        {
            "X-Forwarded-For": "1.2.3.4",
            "X-Forwarded-Proto": "https",
            "X-Forwarded-Host": "example.com",
        },
        Origin("1.2.3.4", "https", "example.com"),
    ),
    "a scheme alone": ({"X-Forwarded-Proto": "HTTPS"}, Origin(None, "https")),
    "a scheme for each": (
        {"X-Forwarded-For": f"6.6.6.6, 1.2.3.4, {INNER}", "X-Forwarded-Proto": "ftp, https, http"},
        Origin("1.2.3.4", "https"),
    ),
    "a scheme that the client wrote before": (
        {"X-Forwarded-For": "1.2.3.4", "X-Forwarded-Proto": "https, http"},
        Origin("1.2.3.4", "http"),
    ),
    "a scheme that is none": (
        {"X-Forwarded-For": "1.2.3.4", "X-Forwarded-Proto": "javascript"},
        Origin("1.2.3.4"),
    ),
    "a host that is none": (
        {"X-Forwarded-For": "1.2.3.4", "X-Forwarded-Host": "a/b@c"},
        Origin("1.2.3.4"),
    ),
    "no address": ({"X-Forwarded-For": "unknown"}, None),
    "no address behind one": ({"X-Forwarded-For": "6.6.6.6, nobody"}, None),
    "no address before a proxy": ({"X-Forwarded-For": f"nobody, {INNER}"}, Origin(INNER)),
    "empty": ({"X-Forwarded-For": ""}, None),
    "commas": ({"X-Forwarded-For": ",,,"}, None),
    "not ASCII": ({"X-Forwarded-For": "\udcff1.2.3.4"}, None),
    "an address of version 6": ({"X-Forwarded-For": "2001:DB8::1"}, Origin("2001:db8::1")),
    "an address with a port": ({"X-Forwarded-For": "1.2.3.4:80"}, Origin("1.2.3.4")),
    "one in brackets with a port": ({"X-Forwarded-For": "[2001:db8::1]:80"}, Origin("2001:db8::1")),
    "one that is mapped": ({"X-Forwarded-For": "::ffff:1.2.3.4"}, Origin("1.2.3.4")),
    "a mapped proxy": ({"X-Forwarded-For": f"1.2.3.4, ::ffff:{INNER}"}, Origin("1.2.3.4")),
    "RFC 7239": (
        {"Forwarded": "for=1.2.3.4;proto=https;host=example.com"},
        Origin("1.2.3.4", "https", "example.com"),
    ),
    "RFC 7239, quoted": (
        {"Forwarded": 'For="[2001:db8::1]:4711" ; by=_x;Host="example.com:8443"'},
        Origin("2001:db8::1", None, "example.com:8443"),
    ),
    "RFC 7239, escaped": ({"Forwarded": r'for="1.2\.3.4"'}, Origin("1.2.3.4")),
    "RFC 7239, two proxies": (
        {"Forwarded": f"for=6.6.6.6;host=evil, for=1.2.3.4;proto=https, for={INNER};proto=http"},
        Origin("1.2.3.4", "https"),
    ),
    "RFC 7239, a comma in quotes": (
        {"Forwarded": 'for="_a,for=6.6.6.6", for=1.2.3.4'},
        Origin("1.2.3.4"),
    ),
    "RFC 7239, hidden": (
        {"Forwarded": "for=6.6.6.6, for=_hidden;proto=https"},
        Origin(None, "https"),
    ),
    "RFC 7239, malformed": ({"Forwarded": 'for="1.2.3.4'}, None),
    "RFC 7239, twice the same": ({"Forwarded": "for=1.2.3.4;for=6.6.6.6"}, None),
    "RFC 7239, malformed beside the others": (
        {"Forwarded": "for=;;=", "X-Forwarded-For": "1.2.3.4"},
        None,
    ),
    "both, of one mind": (
        {"Forwarded": "for=1.2.3.4;proto=https", "X-Forwarded-For": "1.2.3.4"}
        | {"X-Forwarded-Proto": "https"},
        Origin("1.2.3.4", "https"),
    ),
    "both, one of them the client's": (
        {"Forwarded": "for=1.2.3.4;host=evil", "X-Forwarded-For": "1.2.3.4"},
        None,
    ),
}


@pytest.mark.parametrize("said", SAID)
def test_the_last_hop_that_is_not_trusted_is_who_asked(said):
    headers, right = SAID[said]

    origin = Proxies(["10.0.0.0/8"]).origin(CIMultiDictProxy(CIMultiDict(headers)))

    assert origin == right


def test_several_headers_are_one_list():
    headers = CIMultiDict([("X-Forwarded-For", "6.6.6.6"), ("X-Forwarded-For", "1.2.3.4")])

    assert Proxies([]).origin(CIMultiDictProxy(headers)) == Origin("1.2.3.4")


def test_hostile_headers_cost_little():
    proxies = Proxies(["10.0.0.0/8"])
    for value in ("10.0.0.1," * 900, 'for="' + "\\a" * 4000, "for=a;" * 1300, ' "' * 4000):
        for name in ("X-Forwarded-For", "Forwarded"):
            began = time.process_time()
            proxies.origin(CIMultiDictProxy(CIMultiDict({name: value})))
            assert time.process_time() - began < 0.1


@pytest.mark.parametrize("network", ["10.0.0.1/8", "example.com", "", "1.2.3.4/33"])
def test_what_is_no_network_is_told(tmp_path, network):
    with pytest.raises(SettingsError, match="trusted_proxies"):
        load_settings({"server": {"trusted_proxies": [network]}}, folder=tmp_path, environ={})


def test_an_address_is_a_network():
    settings = load_settings({"server": {"trusted_proxies": ["::1", "10.0.0.1"]}}, environ={})

    assert settings.server.trusted_proxies == ["::1/128", "10.0.0.1/32"]


FORWARDED = {
    "X-Forwarded-For": "6.6.6.6, 1.2.3.4",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "example.com",
}


@pytest.fixture
def trusted() -> list[str]:
    return ["127.0.0.0/8", "::1/128"]


@pytest.fixture
def petsage_settings(petsage_settings, trusted):
    server = petsage_settings.server.model_copy(update={"trusted_proxies": trusted})
    return petsage_settings.model_copy(update={"server": server})


@pytest.fixture
async def client(feature_client, feature_folder):
    return await feature_client(feature_folder("who", FEATURE))


async def test_a_handler_and_the_log_see_who_asked(client, log_lines):
    seen = await (await client.get("/who?a", headers=FORWARDED)).json()

    assert seen == {
        "remote": "1.2.3.4",
        "scheme": "https",
        "host": "example.com",
        "url": "https://example.com/who?a",
    }
    line = log_lines()[-1]
    assert (line["remote"], line["scheme"], line["host"]) == ("1.2.3.4", "https", "example.com")


async def test_the_log_sees_it_where_no_request_is_made(client, log_lines):
    assert (await client.get("/plain", headers=FORWARDED)).status == 200

    line = log_lines()[-1]
    assert (line["remote"], line["scheme"], line["host"]) == ("1.2.3.4", "https", "example.com")


async def test_each_request_of_a_connection_is_its_own(client, log_lines):
    await client.get("/who", headers=FORWARDED)
    for path in ("/who", "/plain"):
        await client.get(path)
        line = log_lines()[-1]
        assert line["remote"] == "127.0.0.1"
        assert "host" not in line


@pytest.mark.parametrize("name", ["X-Forwarded-For", "X-Forwarded-Host", "Forwarded"])
async def test_what_is_nonsense_is_no_error(client, name):
    for value in ("", '"', "for=", "[", "x" * 5000, ",;" * 100, "\xff"):
        answer = await client.get("/who", headers={name: value})
        assert (await answer.json())["remote"] == "127.0.0.1"


@pytest.mark.parametrize("target", ["http://other/who", "CONNECT other:80"])
async def test_a_target_that_names_its_host_is_no_error(client, target):
    reader, writer = await asyncio.open_connection(client.host, client.port)
    method = "" if " " in target else "GET "
    lines = "".join(f"{name}: {value}\r\n" for name, value in FORWARDED.items())
    writer.write(f"{method}{target} HTTP/1.1\r\nHost: x\r\n{lines}\r\n".encode())
    async with asyncio.timeout(10):
        head = await reader.readuntil(b"\r\n\r\n")
        if method:
            assert b'"https://other/who"' in await reader.readuntil(b"}")
    assert head.startswith(b"HTTP/1.1 200 " if method else b"HTTP/1.1 501 ")
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("trusted", [[], ["10.0.0.0/8"]])
async def test_who_is_not_trusted_is_not_believed(client, log_lines, trusted):
    seen = await (await client.get("/who", headers=FORWARDED)).json()
    await client.get("/plain", headers=FORWARDED)

    assert (seen["remote"], seen["scheme"]) == ("127.0.0.1", "http")
    assert seen["host"] != "example.com"
    lines = [line for line in log_lines() if line["logger"] == "petsage.access"]
    assert {line["remote"] for line in lines} == {"127.0.0.1"}
    assert not any("host" in line for line in lines)
