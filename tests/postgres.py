"""PostgreSQL for tests: clusters of their own in temporary folders, which end with who uses them.

A keeper, which is this file run as a program, makes a cluster, starts its server and waits at a
pipe. When the last who can write to the pipe is gone, however that comes, it ends the server and
removes the folder. The processes of one test run share a cluster: the pipe has a name, and the
first that needs it starts the keeper, under a lock.
"""

import contextlib
import fcntl
import json
import os
import pwd
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

USER = "petsage"
MISSING = (
    "PostgreSQL is not installed (no initdb on PATH, nor in /usr/lib/postgresql/*/bin); "
    "fix: apt-get install postgresql"
)
DEBIAN = Path("/usr/lib/postgresql")
START_S = 60
# Nothing has to last. An order that is not by code point and a zone that is not UTC show what
# leaves these to the server. The log goes to the keeper, which waits for a line of it.
OPTIONS = {
    "autovacuum": "off",
    "fsync": "off",
    "full_page_writes": "off",
    "lc_messages": "C",
    "listen_addresses": "",
    "log_destination": "stderr",
    "logging_collector": "off",
    "max_connections": "200",
    "max_wal_senders": "0",
    "shared_buffers": "32MB",
    "synchronous_commit": "off",
    "timezone": "Asia/Kathmandu",
    "wal_level": "minimal",
}
_READY = "database system is ready to accept connections"
_LONGEST_SOCKET = 80  # of the 107 bytes that a socket's path may have


class PostgresError(Exception):
    """No server is to be had; the text says why."""


def find_initdb() -> Path:
    """PostgreSQL's `initdb`; Debian has it in a folder of each version, off PATH."""
    on_path = shutil.which("initdb")
    if on_path is not None:
        return Path(on_path).resolve()
    versions = DEBIAN.glob("*/bin/initdb")
    newest = max(versions, key=lambda path: float(path.parent.parent.name), default=None)
    if newest is None:
        raise PostgresError(MISSING)
    return newest


class Cluster:
    """A cluster of this process's own, its server running."""

    def __init__(self) -> None:
        orders_out, self._orders = os.pipe()
        try:
            self._keeper, self.url = _start_keeper(orders_out)
        except BaseException:
            os.close(self._orders)
            raise
        finally:
            os.close(orders_out)

    def stop(self) -> None:
        """Ends the server as its operator does: clients are told, and nothing listens any more."""
        self._order("stop")

    def crash(self) -> None:
        """Ends the server at once; it finds out at its next start what was done."""
        self._order("crash")

    def start(self) -> None:
        """Starts the server again, where it was; a call is for nothing where it runs."""
        self._order("start")

    def end(self) -> None:
        """Ends it for good; nothing is left of it."""
        os.close(self._orders)
        self._keeper.communicate(timeout=START_S)

    def _order(self, order: str) -> None:
        os.write(self._orders, f"{order}\n".encode())
        _read_answer(self._keeper)


@contextlib.contextmanager
def shared_cluster(folder: Path) -> Iterator[str]:
    """The URL of the cluster that all have in common who name the same folder.

    It ends when none of them is within this context any more.
    """
    with _locked(folder / "postgres.lock"):
        pipe, url = _join(folder) or _begin(folder)
    try:
        yield url
    finally:
        os.close(pipe)


def _join(folder: Path) -> tuple[int, str] | None:
    """The end of the pipe to hold, and the URL; None where no keeper reads from it."""
    try:
        pipe = os.open(folder / "postgres.pipe", os.O_WRONLY | os.O_NONBLOCK)
    except OSError:  # there is no pipe, or nobody at its other end
        return None
    return pipe, (folder / "postgres.url").read_text(encoding="utf-8")


def _begin(folder: Path) -> tuple[int, str]:
    """Starts the keeper; the end of the pipe to hold, and the URL."""
    path = folder / "postgres.pipe"
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    out = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    pipe = os.open(path, os.O_WRONLY)
    try:
        keeper, url = _start_keeper(out, lock=folder / "postgres.lock")
        (folder / "postgres.url").write_text(url, encoding="utf-8")
    except BaseException:
        os.close(pipe)
        raise
    finally:
        os.close(out)
    assert keeper.stdout is not None
    keeper.stdout.close()
    keeper.returncode = 0  # it may outlive this process, which is not to wait for it
    return pipe, url


def _start_keeper(orders: int, lock: Path | None = None) -> tuple[subprocess.Popen[str], str]:
    """A keeper whose server runs, and the server's URL."""
    find_initdb()
    keeper = subprocess.Popen(
        [sys.executable, "-P", __file__, *([str(lock)] if lock else [])],
        stdin=orders,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # what ends a terminal's processes does not end it
    )
    return keeper, _read_answer(keeper)


def _read_answer(keeper: subprocess.Popen[str]) -> str:
    """What a keeper answers, once it has done what was ordered."""
    assert keeper.stdout is not None
    line = keeper.stdout.readline()
    answer: dict[str, Any] = json.loads(line) if line else {"error": "the keeper has ended"}
    if "error" in answer:
        keeper.communicate(timeout=START_S)
        raise PostgresError(answer["error"])
    return str(answer["url"])


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class Keeper:
    """What runs in the keeper's process."""

    def __init__(self) -> None:
        self._bin = find_initdb().parent
        # Where a deep TMPDIR would make the socket's path too long, or keeps others out.
        inner = tempfile.gettempdir()
        self._parent = inner if len(inner) <= _LONGEST_SOCKET else "/tmp"
        self.folder = Path(tempfile.mkdtemp(prefix="petsage-postgres-", dir=self._parent))
        self._as_user: dict[str, Any] = {"cwd": self.folder}
        if os.geteuid() == 0:  # as whom PostgreSQL refuses to run
            user = _unprivileged()
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            self._as_user |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        self._server: subprocess.Popen[bytes] | None = None
        self.url = f"postgresql://{USER}@/postgres?host={self.folder}"

    def make(self) -> None:
        """Makes the cluster; only who may enter its folder can connect to it."""
        options = ["--auth=trust", f"--username={USER}", "--encoding=UTF8", "--locale=C.UTF-8"]
        order = ["--locale-provider=icu", "--icu-locale=en-US"]
        command = [str(self._bin / "initdb"), "--no-sync", "--no-instructions", *options]
        for tried in ([*command, *order], command):  # the second is for versions before 15
            made = subprocess.run(
                [*tried, "-D", self.folder / "data"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                **self._as_user,
            )
            if made.returncode == 0:
                return
        raise PostgresError(f"initdb failed: {made.stderr.strip()}")

    def start(self) -> None:
        """Starts the server, and waits until it takes connections."""
        if self._server is not None:
            return
        options = {**OPTIONS, "unix_socket_directories": str(self.folder)}
        self._server = subprocess.Popen(
            [
                self._bin / "postgres",
                *("-D", self.folder / "data"),
                *(part for name, value in options.items() for part in ("-c", f"{name}={value}")),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            **self._as_user,
        )
        said: list[str] = []
        for line in self._log:
            said.append(line.decode("utf-8", "replace"))
            if _READY in said[-1]:
                return
        raise PostgresError(f"PostgreSQL did not start: {''.join(said[-5:]).strip()}")

    def stop(self) -> None:
        """Ends the server, and tells its clients that an operator does."""
        self._end(signal.SIGINT)

    def crash(self) -> None:
        """Ends the server where it stands."""
        self._end(signal.SIGQUIT)

    def _end(self, how: signal.Signals) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.send_signal(how)
            server.communicate()  # to the end of its log, which its last process closes

    def answer_orders(self) -> None:
        """Does what it is told by standard input, until nobody can tell it anything."""
        os.set_blocking(0, True)
        orders = {"start": self.start, "stop": self.stop, "crash": self.crash}
        while True:
            # The server waits when nobody reads what it logs.
            ready, _, _ = select.select([0, *self._logs()], [], [])
            for descriptor in sorted(ready, reverse=True):  # orders last: some close the log
                data = os.read(descriptor, 65536)
                if descriptor != 0:
                    if not data:
                        self.crash()  # it has ended by itself
                    continue
                if not data:
                    return
                for order in data.decode().split():
                    orders[order]()
                    self.answer()

    def answer(self) -> None:
        """Says that it is done."""
        _say(url=self.url)

    @property
    def _log(self) -> IO[bytes]:
        assert self._server is not None
        assert self._server.stderr is not None
        return self._server.stderr

    def _logs(self) -> list[int]:
        return [] if self._server is None else [self._log.fileno()]

    def remove(self) -> None:
        """Ends all of it."""
        self.crash()
        shutil.rmtree(self.folder)


def _say(**answer: str) -> None:
    with contextlib.suppress(BrokenPipeError):  # who asked is gone, which the next look finds
        os.write(1, f"{json.dumps(answer)}\n".encode())


def _unprivileged() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise PostgresError("PostgreSQL does not run as root; fix: make a user `postgres` or `nobody`")


def _let_go(lock: Path | None) -> bool:
    """Whether nobody uses the cluster, nor can join any more."""
    if lock is None:
        return True
    with _locked(lock):
        pipe = select.poll()
        pipe.register(0, select.POLLIN)
        is_last = any(event & select.POLLHUP for _, event in pipe.poll(0))
        if is_last:
            os.close(0)
        return is_last


def main() -> None:
    """Keeps a cluster until the last who uses it is gone."""
    lock = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        keeper = Keeper()
        try:
            keeper.make()
            keeper.start()
            keeper.answer()
            keeper.answer_orders()
            while not _let_go(lock):
                keeper.answer_orders()
        finally:
            keeper.remove()
    except PostgresError as error:
        _say(error=str(error))


if __name__ == "__main__":
    main()
