"""Who really asked, where a proxy asks for others: told by trusted proxies, and by no one else.

`Forwarded` is RFC 7239's; `X-Forwarded-For`, `-Proto` and `-Host` are what most proxies send.
docs/operations.md says what a proxy has to see to.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, Final, NamedTuple

from aiohttp import hdrs

from petsage.protocol import is_authority

_FOR: Final = "X-Forwarded-For"
_PROTO: Final = "X-Forwarded-Proto"
_HOST: Final = "X-Forwarded-Host"

# One pair of an element, and what comes behind it: `;` more of the same, `,` the next one.
_PAIR: Final = re.compile(
    r"[ \t]*(?:([!#$%&'*+.^_`|~0-9A-Za-z-]+)="
    r"(?:([!#$%&'*+.^_`|~0-9A-Za-z-]+)|\"((?:[^\"\\]|\\.)*)\"))?[ \t]*([;,]|$)"
)
_WITH_PORT: Final = re.compile(r"(?:\[([^\]]+)\]|([0-9.]+))(?::[0-9A-Za-z._-]+)?")
_SCHEMES: Final = frozenset(("http", "https"))

_Address = IPv4Address | IPv6Address


class Origin(NamedTuple):
    """Who asked, and how, as far as it is told; None where it is not."""

    remote: str | None = None
    scheme: str | None = None
    host: str | None = None


class _Hop(NamedTuple):
    """What one proxy says of who asked it, as it stands there."""

    remote: str | None
    scheme: str | None
    host: str | None


class Proxies:
    """The proxies that are believed.

    Args:
        networks: where they are, as CIDRs.
    """

    def __init__(self, networks: Sequence[str]) -> None:
        self._networks = [ip_network(each) for each in networks]

    def trusts(self, address: str | None) -> bool:
        """Whether what comes from an address is a proxy's."""
        found = _address(address)
        return found is not None and self._has(found)

    def origin(self, headers: Mapping[str, str]) -> Origin | None:
        """What a trusted proxy says of who asked; None where nothing, or nothing that is sure.

        The last hop that is no trusted proxy is who asked: what stands before it, anybody can
        have written. Where both kinds of headers are there and do not agree, one of them is the
        client's own, that the proxy has let through; so neither is believed.
        """
        many: Any = headers
        forwarded, others = None, None
        if hdrs.FORWARDED in headers:
            forwarded = self._last(list(_hops(",".join(many.getall(hdrs.FORWARDED)))))
            if forwarded is None:
                return None
        if _FOR in headers or _PROTO in headers or _HOST in headers:
            others = self._last(_other_hops(many))
            if forwarded is not None and forwarded != others:
                return None
        return forwarded or others

    def _last(self, hops: list[_Hop]) -> Origin | None:
        """The last that is no trusted proxy, or the first of all."""
        remote = scheme = host = None
        for hop in reversed(hops):
            if hop.scheme is not None and hop.scheme.lower() in _SCHEMES:
                scheme = hop.scheme.lower()
            if hop.host is not None and is_authority(hop.host):
                host = hop.host
            address = _address(hop.remote)
            if address is None:
                break  # it is hidden, or no address; who comes before it nobody can say
            remote = str(address)
            if not self._has(address):
                break
        return Origin(remote, scheme, host) if remote or scheme or host else None

    def _has(self, address: _Address) -> bool:
        return any(address in network for network in self._networks)


def _address(text: str | None) -> _Address | None:
    """The address of a node, without its port; None where it has none."""
    if not text:
        return None
    match = _WITH_PORT.fullmatch(text)
    if match is not None:
        text = match[1] or match[2]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _hops(value: str) -> Iterator[_Hop]:
    """The hops in a `Forwarded`; nothing where it is malformed."""
    hops, pairs, position = [], dict[str, str](), 0
    while True:
        match = _PAIR.match(value, position)
        if match is None:
            return
        name, token, quoted, end = match.groups()
        if name is not None:
            if name.lower() in pairs:
                return
            pairs[name.lower()] = token or re.sub(r"\\(.)", r"\1", quoted or "")
        if end != ";":
            if pairs:
                hops.append(_Hop(pairs.get("for"), pairs.get("proto"), pairs.get("host")))
            pairs = {}
        position = match.end()
        if not end:
            break
    yield from hops


def _other_hops(headers: Any) -> list[_Hop]:
    """The hops in the headers whose names begin with `X-Forwarded`.

    Where there are as many schemes or hosts as addresses, they belong together; else the last is
    what the last proxy says.
    """
    remotes = _values(headers, _FOR) or [""]
    count = len(remotes)
    schemes, hosts = (
        found if len(found) == count else [None] * (count - 1) + (found[-1:] or [None])
        for found in (_values(headers, _PROTO), _values(headers, _HOST))
    )
    return [_Hop(*each) for each in zip(remotes, schemes, hosts, strict=True)]


def _values(headers: Any, name: str) -> list[Any]:
    text = ",".join(headers.getall(name, ()))
    return [each.strip(" \t") for each in text.split(",")] if text else []
