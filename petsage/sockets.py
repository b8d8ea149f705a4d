"""The sockets that are listened on: inherited ones, their addresses, and their end."""

import array
import asyncio
import contextlib
import errno
import os
import socket
import struct
import sys
from collections.abc import Iterable, MutableMapping
from ipaddress import ip_address
from typing import Any, Final

from petsage.errors import StartError

# sd_listen_fds(3): they begin behind the standard streams.
_FIRST_DESCRIPTOR: Final = 3
_FAMILIES: Final = frozenset(
    (socket.AF_INET, socket.AF_INET6, getattr(socket, "AF_UNIX", socket.AF_INET))
)
# Classic BPF over a TCP header: a segment with SYN and without ACK is dropped.
_DROP_SYN: Final = (
    (0x30, 0, 0, 13),  # load the byte of flags
    (0x54, 0, 0, 0x12),  # keep SYN and ACK
    (0x15, 0, 1, 0x02),  # is it SYN alone?
    (0x06, 0, 0, 0),  # then drop it
    (0x06, 0, 0, 0xFFFFFFFF),  # else take it
)
_SO_ATTACH_FILTER: Final = 26


def take_inherited_sockets(environ: MutableMapping[str, str]) -> list[socket.socket]:
    """The listening sockets that the parent hands over, none where it hands over none.

    Args:
        environ: the process's environment; `LISTEN_FDS`, `LISTEN_PID` and `LISTEN_FDNAMES` are
            taken out of it, and processes started from here inherit no socket.

    Raises:
        StartError: a variable cannot be read, or what is handed over is no listening socket.

    Source: sd_listen_fds(3).
    """
    pid, count = environ.pop("LISTEN_PID", None), environ.pop("LISTEN_FDS", None)
    environ.pop("LISTEN_FDNAMES", None)
    if pid is None or count is None or _number("LISTEN_PID", pid) != os.getpid():
        return []
    last = _FIRST_DESCRIPTOR + _number("LISTEN_FDS", count)
    return [_inherited(descriptor) for descriptor in range(_FIRST_DESCRIPTOR, last)]


def _number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit()) or not 0 < int(text) < 2**31:
        raise StartError(
            f"the environment variable {name} is {text!r}, and no number above 0",
            fix="let the parent set LISTEN_FDS and LISTEN_PID as sd_listen_fds(3) says, or neither",
        )
    return int(text)


def _inherited(descriptor: int) -> socket.socket:
    try:
        os.set_inheritable(descriptor, False)
        found = socket.socket(fileno=descriptor)
    except OSError as error:
        raise _wrong(descriptor, f"is no socket ({error.strerror})") from None
    problem = ""
    if found.family not in _FAMILIES or found.type != socket.SOCK_STREAM:
        problem = f"is of the kind {found.family.name}, {found.type.name}"
    elif not found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        problem = "does not listen"
    if problem:
        found.detach()  # whoever it belongs to still wants it
        raise _wrong(descriptor, problem)
    return found


def _wrong(descriptor: int, what: str) -> StartError:
    return StartError(
        f"LISTEN_FDS hands over descriptor {descriptor}, which {what}",
        fix="hand over stream sockets (TCP or AF_UNIX) that listen, or unset LISTEN_FDS",
    )


async def listen(host: str, port: int) -> list[socket.socket]:
    """Sockets that listen on an address: one for each that the name stands for.

    `localhost` may stand for one of IPv6 where there is no IPv6; the other one does then.

    Raises:
        OSError: it is no address of this machine, or is taken.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    absent: OSError | None = None
    with contextlib.ExitStack() as made:
        for family, _, protocol, _, address in dict.fromkeys(found):
            try:
                sockets.append(made.enter_context(_listening(family, protocol, address)))
            except OSError as error:
                if error.errno not in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:
                    raise
                absent = error
        if absent is not None and not sockets:
            raise absent
        made.pop_all()
    return sockets


def _listening(family: int, protocol: int, address: Any) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM, protocol)
    try:
        if sys.platform != "win32":
            # Else what a former server has left open for a moment would keep the port taken.
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(address)
        made.listen(socket.SOMAXCONN)
    except BaseException:
        made.close()
        raise
    return made


def url_of(address: Any) -> str:
    """A socket's address for people and clients: `http://host:port`, `unix:/path`."""
    if not isinstance(address, tuple):
        name = address.decode() if isinstance(address, bytes) else str(address)
        return f"unix:{name.replace(chr(0), '@')}"  # an abstract name begins with NUL
    host, port = address[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_loopback(addresses: Iterable[Any]) -> bool:
    """Whether there are addresses, and each is reached from this machine alone.

    Args:
        addresses: what `getsockname()` says of each socket that is listened on.
    """
    hosts = [each[0] if isinstance(each, tuple) else None for each in addresses]
    return bool(hosts) and all(host is None or ip_address(host).is_loopback for host in hosts)


def refuse_new_connections(descriptors: Iterable[int]) -> None:
    """Lets no further connection begin on listening TCP sockets; those that have begun come.

    What waits to be accepted when a listening socket is closed is reset, and under load there is
    always something. So the kernel drops what would begin, where it can (Linux), and the queue
    runs dry before the close. A client that is dropped tries again in a second, and is refused.

    Args:
        descriptors: of sockets that nobody else listens on: the filter is the socket's.

    Raises:
        OSError: the kernel does not let us.
    """
    if not sys.platform.startswith("linux"):
        return
    code = array.array("B", b"".join(struct.pack("HBBI", *each) for each in _DROP_SYN))
    program = struct.pack("HP", len(_DROP_SYN), code.buffer_info()[0])
    for descriptor in descriptors:
        with socket.socket(fileno=os.dup(descriptor)) as listening:
            listening.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
