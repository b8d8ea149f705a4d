"""What features have done wrong: counted by kind, bounded, forgotten when they are others."""

import threading
from typing import Any

import pytest

from petsage.troubles import Troubles, place_in


@pytest.fixture
def troubles():
    return Troubles()


def test_each_kind_is_one_entry_with_its_count_and_the_last_of_it(troubles):
    for number in range(1000):
        troubles.note("pets", "request-failed", f"failed {number}", fix="mend it")
    troubles.note("pets", "loop-blocked", "for 1 s", fix="await it")
    troubles.note("pets", "loop-blocked", "for 2 s", fix="await it", again=False)

    latest, other = troubles.of("pets")

    assert (latest.kind, latest.count, latest.problem) == ("loop-blocked", 1, "for 2 s")
    assert (other.kind, other.count, other.problem) == ("request-failed", 1000, "failed 999")
    assert other.at <= latest.at


def test_what_is_said_is_of_bounded_length(troubles):
    troubles.note("pets", "request-failed", "x" * 10_000, fix="y" * 10_000)
    (trouble,) = troubles.of("pets")
    assert len(trouble.problem) == len(trouble.fix) == 500


def test_who_is_not_known_has_none_and_who_is_gone_has_none_any_more(troubles):
    troubles.note(None, "loop-ended", "who knows", fix="look for it")
    for name in ("pets", "owners", "shops"):
        troubles.note(name, "stray-failed", "it failed", fix="mend it")

    troubles.forget({"pets"})
    troubles.keep({"owners", "pets"})

    assert [name for name in ("pets", "owners", "shops") if troubles.of(name)] == ["owners"]


def test_threads_that_note_at_once_are_all_counted(troubles):
    def note() -> None:
        for _ in range(500):
            troubles.note("pets", "stray-failed", "it failed", fix="mend it")

    threads = [threading.Thread(target=note) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()

    assert troubles.of("pets")[0].count == 2000


def test_the_place_is_the_innermost_line_of_the_feature_itself():
    code = compile("def fail(call):\n    call()\n", "/house/pets.py", "exec")
    pets: dict[str, Any] = {"__name__": "features.pets.routes"}
    exec(code, pets)
    with pytest.raises(ZeroDivisionError) as caught:
        pets["fail"](lambda: 1 / 0)

    assert place_in(caught.value, "pets") == " at /house/pets.py:2 in fail"
    assert place_in(caught.value, "pet") == place_in(caught.value, None) == ""
