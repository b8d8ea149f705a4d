"""What is remembered of each feature's folder: what was tried, what serves of it, what failed."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

from petsage.candidate import Candidate
from petsage.entry import Change, Entry
from petsage.setback import Setback, setback_of

Key = tuple[object, ...]
"""What a folder held, and what the settings said of it: the same again is no change."""


class Ledger:
    """What became of the features so far; it changes nothing that runs.

    Attributes:
        seen: the key of what was tried last, by name.
        setbacks: why what was tried last does not serve, by name; a former generation may.
        duplicates: those that have the name of one in an earlier folder.
        starting: those that are on their way, and did not serve before, as they are shown.
        ahead: what was removed ahead of the change that is to tell of it, and no more than that.
    """

    def __init__(self) -> None:
        self.seen: dict[str, Key] = {}
        self.setbacks: dict[str, Setback] = {}
        self.duplicates: list[Setback] = []
        self.starting: dict[str, Entry] = {}
        self.ahead: dict[str, Change] = {}
        self._served_keys: dict[str, Key] = {}  # of what serves, where it was tried for itself

    def asked(self, names: Collection[str] | None) -> set[str]:
        """Those of `names`, or of all, that were tried."""
        return {*self.seen} if names is None else self.seen.keys() & {*names}

    def is_served_key(self, name: str, key: Key) -> bool:
        """Whether this is what serves under a name, though something else was tried since."""
        return self._served_keys.get(name) == key

    def try_again(self, names: Collection[str]) -> None:
        """Lets what failed differ from what was tried, though its folder is the same."""
        for name in self.setbacks.keys() & names:
            self.seen[name] = ()

    @contextmanager
    def trying(
        self, keys: Mapping[str, Key], gone: Collection[str], *, serving: Collection[str]
    ) -> Iterator[None]:
        """Holds what differs as tried, and forgets what is gone, unless the body fails.

        Args:
            keys: of what differs, by name.
            gone: the names of what is not there any more.
            serving: what serves; the others are starting while the body runs.
        """
        before = {name: key for name, key in self.seen.items() if name in keys or name in gone}
        for name, key in keys.items():
            self.seen[name] = key
            if name not in serving:
                self.starting[name] = Entry(name, None, "starting", (), (), system=False)
        for name in gone:
            self.seen.pop(name, None)
        try:
            yield
        except BaseException:
            # Nothing of it is current: it is to be tried again.
            for name in keys:
                self.seen.pop(name, None)
            self.seen |= {name: key for name, key in before.items() if name not in self.ahead}
            raise
        finally:
            self.starting.clear()

    def forget(self, name: str) -> None:
        """Knows a feature no longer."""
        for known in (self.seen, self._served_keys, self.setbacks, self.starting):
            known.pop(name, None)

    def note_serving(self, names: Collection[str]) -> None:
        """Remembers that what was tried last of these serves."""
        for name in names:
            self.setbacks.pop(name, None)
            self._served_keys[name] = self.seen.get(name, ())

    def note_restored(self, name: str, key: Key) -> bool:
        """Remembers that a folder holds again what serves; whether something else had failed."""
        self.seen[name] = key
        return self.setbacks.pop(name, None) is not None

    def note_duplicates(
        self, duplicates: Collection[Candidate], names: Collection[str] | None
    ) -> list[Candidate]:
        """Remembers what is there twice, of all names or of these; those that were not before."""
        known = {setback.candidate.folder: setback for setback in self.duplicates}
        kept = [
            setback
            for setback in self.duplicates
            if names is not None and setback.candidate.name not in names
        ]
        kept += [known.get(each.folder) or setback_of(each, ()) for each in duplicates]
        self.duplicates = kept
        return [candidate for candidate in duplicates if candidate.folder not in known]
