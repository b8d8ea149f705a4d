"""Who may change a feature's code: this user, root, and who may change the core, and no other."""

import contextlib
import functools
import os
import shlex
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from petsage.errors import Severity
from petsage.feature import Place
from petsage.listing import Listing, PlacedFlaw
from petsage.signature import Flaw

try:
    import grp
    import pwd
except ImportError:  # no POSIX: nobody owns a file in its sense
    _HAS_OWNERS = False
else:
    _HAS_OWNERS = True

_CORE: Final = Path(__file__).parent


def find_unsafe(folder: Path, listing: Listing, roots: Mapping[str, Path]) -> list[PlacedFlaw]:
    """What others than trusted users may change of a feature, each kind once, with its command.

    A sticky folder counts as any other: who may write there may add a file. Of a link, what it
    leads to counts, with each folder that holds that.

    Args:
        folder: the feature's folder, as it was named.
        listing: what is in it.
        roots: the folders of features, by where they are, as they were named; one that is not
            safe makes no feature in it safe. What is above them does not count.
    """
    if not _HAS_OWNERS or not listing.folders:
        return []
    flaws: list[PlacedFlaw] = []
    for path, state in _above(folder, listing, roots):
        flaws += _found(path, {"": state}, {})
    flaws += _found(folder, {**listing.folders, **listing.files}, listing.links)
    return flaws


def _above(
    folder: Path, listing: Listing, roots: Mapping[str, Path]
) -> Iterator[tuple[Path, os.stat_result]]:
    """Each folder that holds the feature's, or what a link leads to, up to a root."""
    seen = set()
    for place in (os.path.realpath(folder), *listing.links.values()):
        above = place
        while above not in roots and above != os.path.dirname(above):  # noqa: PTH120 - strings
            above = os.path.dirname(above)  # noqa: PTH120 - strings: realpath made them
            if above not in seen:
                seen.add(above)
                with contextlib.suppress(FileNotFoundError):  # of a link that leads nowhere
                    yield roots.get(above, Path(above)), Path(above).stat()


def _found(
    folder: Path, states: Mapping[str, os.stat_result], links: Mapping[str, str]
) -> Iterator[PlacedFlaw]:
    """A flaw for each kind that there is among the files and folders in a folder."""
    open_to_all, strange, grouped = [], [], []
    for within, state in states.items():
        if state.st_mode & stat.S_IWOTH:
            open_to_all.append(within)
        elif state.st_mode & stat.S_IWGRP and not _is_private(state.st_uid, state.st_gid):
            grouped.append(within)
        if state.st_uid not in _trusted():
            strange.append(within)
    kinds: tuple[tuple[list[str], Severity, str, str, str], ...] = (
        (open_to_all, "error", "unsafe-permissions", "everyone may write {}", "chmod o-w"),
        (strange, "error", "unsafe-permissions", "{} belongs to {owner}", f"chown {_own_name()}"),
        (grouped, "warning", "group-writable", "the group {group} may write {}", "chmod g-w"),
    )
    for affected, level, kind, problem, command in kinds:
        if not affected:
            continue
        first = folder / min(affected)
        state = states[min(affected)]
        told = problem.format(
            f"{first.name} (mode {stat.S_IMODE(state.st_mode):04o})",
            owner=f"the user {_user_name(state.st_uid)}, who is not trusted with it",
            group=_group_name(state.st_gid),
        )
        more = f", and {len(affected) - 1} more" if len(affected) > 1 else ""
        fix = f"run `{_command(command, folder, affected, links)}`"
        yield Place(str(first.absolute()), 0), Flaw(kind, f"{told}{more}", fix), level


def _command(command: str, folder: Path, affected: Sequence[str], links: Mapping[str, str]) -> str:
    """The command for these files and folders; with `-R`, which follows no link, where many."""
    if len(affected) == 1:
        return f"{command} {shlex.quote(str(folder / affected[0]))}"
    paths: dict[str, None] = {}
    for within in affected:
        parts = within.split("/")
        prefixes = ("/".join(parts[:end]) for end in range(1, len(parts) + 1))
        link = next((links[each] for each in prefixes if each in links), None)
        own = os.path.realpath(folder) if folder.is_symlink() else str(folder)
        paths[link or own] = None
    name, *rest = command.split()
    return " ".join([name, "-R", *rest, *map(shlex.quote, paths)])


def _trusted() -> frozenset[int]:
    """Root, this user, and who owns the core: that one needs no feature to change what runs."""
    return frozenset({0, os.geteuid(), _core_owner()})


@functools.cache
def _core_owner() -> int:
    return _CORE.stat().st_uid


@functools.lru_cache(maxsize=256)
def _is_private(user: int, group: int) -> bool:
    """Whether a group is its user's own: the one that it has first, of the same name."""
    try:
        owner = pwd.getpwuid(user)
        return owner.pw_gid == group and grp.getgrgid(group).gr_name == owner.pw_name
    except KeyError:
        return False


def _user_name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


def _group_name(group: int) -> str:
    try:
        return grp.getgrgid(group).gr_name
    except KeyError:
        return str(group)


def _own_name() -> str:
    return _user_name(os.geteuid())
