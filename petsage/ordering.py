"""Features in the order of their needs, and what is wrong between them: circles and clashes."""

import graphlib
from collections.abc import Collection, Container, Iterable, Mapping

from petsage.candidate import Candidate
from petsage.errors import did_you_mean
from petsage.feature import CompiledRoute
from petsage.signature import Flaw


def put_in_order(
    candidates: Iterable[Candidate],
    *,
    disabled: Collection[str],
    beside: Iterable[Candidate] = (),
    aside: Container[str] = (),
    first: Container[str] = (),
) -> list[Candidate]:
    """Each behind what it needs; what is wrong between them is added to their findings.

    Args:
        candidates: all that were loaded, each name once.
        disabled: features that are left out, to tell those that need one.
        beside: others that serve already, and stay as they are; they need none of `candidates`.
        aside: features that are there, and do not serve.
        first: those whose routes were there first.
    """
    by_name = {candidate.name: candidate for candidate in candidates}
    serving = {candidate.name: candidate for candidate in beside}
    known = by_name.keys() | serving.keys()
    for candidate in by_name.values():
        for name in candidate.needs:
            if name not in known:
                flaw = unknown_need(name, known - {candidate.name}, disabled)
                if name in aside:
                    flaw = failed_need(name)
                candidate.add(candidate.argument_place("needs"), flaw)
    needs = {name: {*candidate.needs} & {*by_name} for name, candidate in by_name.items()}
    ordered = [by_name[name] for name in sort_by_needs(by_name, needs)]
    standing = set(serving)
    taken = {
        _key(compiled): (candidate, compiled)
        for candidate in serving.values()
        for compiled in candidate.routes
    }
    for candidate in ordered:
        if candidate.name in first:
            _find_clashes(candidate, taken)
    for candidate in ordered:
        find_failed_need(candidate, standing)
        if candidate.name not in first:
            _find_clashes(candidate, taken)
        if not candidate.errors:
            standing.add(candidate.name)
    return ordered


def unknown_need(name: str, known: Iterable[str], disabled: Collection[str]) -> Flaw:
    """The flaw of needing a feature that is not there."""
    if name in disabled:
        return Flaw(
            "no-such-feature",
            f"it needs `{name}`, which is disabled",
            f"take `{name}` out of [catalog].disabled",
        )
    # The core's own have a dot in their names, and are always there.
    right = [other for other in known if "." not in other]
    problem = f"it needs `{name}`, and there is no such feature"
    return Flaw("no-such-feature", problem, did_you_mean(name, right))


def failed_need(name: str) -> Flaw:
    """The flaw of needing a feature that does not serve."""
    return Flaw("need-failed", f"it needs `{name}`, which was set aside", f"mend `{name}` first")


def find_failed_need(candidate: Candidate, standing: Container[str]) -> None:
    """Sets a candidate aside where something that it needs is not among those that stand."""
    for name in candidate.needs:
        if name not in standing and not candidate.errors:
            candidate.add(candidate.argument_place("needs"), failed_need(name))


def sort_by_needs(by_name: Mapping[str, Candidate], needs: Mapping[str, set[str]]) -> list[str]:
    """The names, each behind those it needs; each of a circle is set aside, and told of it."""
    left = dict(needs)
    while True:
        try:
            return list(graphlib.TopologicalSorter(left).static_order())
        except graphlib.CycleError as error:
            # graphlib lists a circle against the direction of the needs.
            circle = list(reversed(error.args[1][1:]))
            start = circle.index(min(circle))  # the same words for it each time
            circle = [*circle[start:], *circle[:start], circle[start]]
            for name in set(circle):
                left[name] = set()
                by_name[name].add(
                    by_name[name].argument_place("needs"),
                    Flaw(
                        "needs-cycle",
                        f"features need each other in a circle: {' → '.join(circle)}",
                        "take one of these needs out",
                    ),
                )


_RouteKey = tuple[str, tuple[str | None, ...], bool]


def _key(compiled: CompiledRoute) -> _RouteKey:
    """What no two routes may have in common."""
    path = compiled.path
    return compiled.route.method, path.segments, path.tail


def _find_clashes(
    candidate: Candidate, taken: dict[_RouteKey, tuple[Candidate, CompiledRoute]]
) -> None:
    """Finds routes that an earlier feature, or the same one, has; notes the others as taken."""
    if candidate.errors:
        return
    mine: dict[_RouteKey, tuple[Candidate, CompiledRoute]] = {}
    for compiled in candidate.routes:
        key = _key(compiled)
        if key not in taken and key not in mine:
            mine[key] = (candidate, compiled)
            continue
        owner, other = taken.get(key) or mine[key]
        where = f"{owner.shown(other.route.place.file)}:{other.route.place.line}"
        candidate.add(
            compiled.route.place,
            Flaw(
                "route-clash",
                f"{key[0]} {compiled.path.text} is a route of `{owner.name}` already ({where})",
                "change one of the two paths",
            ),
        )
    if not candidate.errors:
        taken.update(mine)
