import os
import select
import subprocess
import sys
import textwrap
import time
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from petsage.errors import StartError
from petsage.fresh_database import fresh_database
from tests import postgres
from tests.postgres import PostgresError, shared_cluster

ROOT = Path(__file__).parent.parent


async def ask(url: str, question: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(question)
    finally:
        await connection.close()


async def databases(url: str) -> list[str]:
    """The databases of a server, those of tests that run beside this one, too."""
    names = await ask(url, "SELECT string_agg(datname, ' ') FROM pg_database")
    return str(names).split()


def folder_of(url: str) -> Path:
    """Where a cluster is that is reached by its socket."""
    return Path(parse_qs(urlsplit(url).query)["host"][0])


def server_pid(url: str) -> int:
    return int((folder_of(url) / "data" / "postmaster.pid").read_text().splitlines()[0])


async def test_a_test_has_a_database_of_its_own(postgres_server, postgres_url) -> None:
    await ask(postgres_url, "CREATE TABLE pets (id int)")
    with fresh_database(postgres_server) as other:
        assert other != postgres_url
        assert await ask(other, "SELECT to_regclass('pets')") is None
    assert await ask(postgres_url, "SELECT to_regclass('pets')::text") == "pets"


async def test_a_database_is_dropped_behind_its_test_whoever_uses_it(postgres_server) -> None:
    with fresh_database(postgres_server) as url:
        left = await asyncpg.connect(url)
        name = urlsplit(url).path.removeprefix("/")
        assert name in await databases(postgres_server)
    assert name not in await databases(postgres_server)
    left.terminate()


def test_what_makes_no_database_is_named_without_its_password(tmp_path) -> None:
    wrong = f"postgresql://rex:secret@/pets?host={tmp_path}"
    with pytest.raises(StartError) as told, fresh_database(wrong):
        pass
    assert f"failed on postgresql://rex:…@/pets?host={tmp_path}: " in str(told.value)
    assert "fix: name a server that is up" in str(told.value)
    assert "secret" not in str(told.value)


def test_a_server_of_another_kind_makes_none() -> None:
    with pytest.raises(StartError) as told, fresh_database("mysql://rex:secret@host/pets"):
        pass
    assert str(told.value).startswith(
        "mysql://rex:…@host/pets does not begin with postgresql://; fix: name a database on "
    )


async def test_a_server_stops_crashes_and_is_there_again(stoppable_postgres) -> None:
    url, cluster = stoppable_postgres.url, stoppable_postgres.cluster
    for end in (cluster.stop, cluster.crash):
        connection = await asyncpg.connect(url)
        assert await connection.fetchval("SELECT 1") == 1
        end()
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
            await connection.fetchval("SELECT 1")
        with pytest.raises(OSError, match=r"No such file|Connection refused"):
            await asyncpg.connect(url)
        cluster.start()
        assert await ask(url, "SELECT 2") == 2
        connection.terminate()


async def test_a_stopped_server_disturbs_no_other(stoppable_postgres, postgres_url) -> None:
    stoppable_postgres.cluster.stop()
    assert await ask(postgres_url, "SELECT 3") == 3


def test_one_cluster_is_shared_until_the_last_has_left(tmp_path) -> None:
    with shared_cluster(tmp_path) as first:
        pid = server_pid(first)
        with shared_cluster(tmp_path) as second:
            assert second == first
        with shared_cluster(tmp_path) as third:
            assert third == first
    wait_for_end(pid, folder_of(first))
    with shared_cluster(tmp_path) as fourth:
        assert fourth != first
        pid = server_pid(fourth)
    wait_for_end(pid, folder_of(fourth))


async def test_who_comes_as_the_last_one_leaves_finds_the_cluster_or_a_new_one(tmp_path) -> None:
    lock = tmp_path / "postgres.lock"
    with ExitStack() as ours:
        url = ours.enter_context(shared_cluster(tmp_path))
        pid = server_pid(url)
        with postgres._locked(lock):
            ours.close()
            wait_for_waiter(lock)  # it has seen that nobody is left
            joined = postgres._join(tmp_path)
        assert joined is not None
        pipe, same = joined
        ours.callback(os.close, pipe)
        with shared_cluster(tmp_path) as other:
            assert url == same == other
        assert await ask(url, "SELECT 4") == 4
    wait_for_end(pid, folder_of(url))


def wait_for_waiter(lock: Path) -> None:
    """Waits until some process wants a lock that this one has."""
    deadline = time.monotonic() + 30
    inode = f":{lock.stat().st_ino} "
    while not any(
        " -> FLOCK" in line and inode in line
        for line in Path("/proc/locks").read_text().splitlines()
    ):
        assert time.monotonic() < deadline, "nobody wants the lock"
        time.sleep(0.005)


USER = """
    import sys
    from pathlib import Path
    from tests.postgres import shared_cluster

    with shared_cluster(Path(sys.argv[1])) as url:
        print(url, flush=True)
        sys.stdin.read()
"""


def test_a_cluster_ends_with_processes_that_are_killed(tmp_path) -> None:
    command = [sys.executable, "-c", textwrap.dedent(USER), str(tmp_path)]
    users = [
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True
        )
        for _ in range(3)  # at once
    ]
    urls = [user.stdout.readline().strip() for user in users if user.stdout is not None]
    assert len(set(urls)) == 1
    pid = server_pid(urls[0])
    for user in users[:2]:
        user.kill()
        user.communicate()
    os.kill(pid, 0)
    users[2].kill()
    users[2].communicate()
    wait_for_end(pid, folder_of(urls[0]))


def wait_for_end(pid: int, folder: Path) -> None:
    """Waits until a server is gone, and its folder."""
    if hasattr(os, "pidfd_open"):
        try:
            process = os.pidfd_open(pid)
        except ProcessLookupError:
            pass
        else:
            ready, _, _ = select.select([process], [], [], 30)
            os.close(process)
            assert ready, f"the server {pid} runs on"
    deadline = time.monotonic() + 30
    while folder.exists():
        assert time.monotonic() < deadline, f"{folder} is left"
        time.sleep(0.005)


@pytest.mark.skipif(os.geteuid() != 0, reason="all others run as somebody else than root")
def test_a_cluster_runs_for_a_user_who_is_not_root_too() -> None:
    code = """
        import os, pwd
        from tests.postgres import Keeper

        nobody = pwd.getpwnam("nobody")
        os.setgroups([])
        os.setgid(nobody.pw_gid)
        os.setuid(nobody.pw_uid)  # behind the imports: it may not be let read them
        keeper = Keeper()
        try:
            keeper.make()
            keeper.start()
            print(os.stat(keeper.folder / "data").st_uid == nobody.pw_uid)
        finally:
            keeper.remove()
        print(keeper.folder.exists())
    """
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert (ran.stdout.split(), ran.stderr) == (["True", "False"], "")


def test_where_there_is_no_postgresql_it_is_said_what_to_install(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(postgres, "DEBIAN", tmp_path)
    with (
        pytest.raises(PostgresError, match="fix: apt-get install postgresql"),
        shared_cluster(tmp_path),
    ):
        pass
