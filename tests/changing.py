"""Features that change while they are asked: their sources, who changes them, and who asks.

Whatever a feature answers carries the word of its generation in as many ways as there are for
something of a former one, or of the next, to get into it.
"""

import contextlib
import itertools
import json
import shutil
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.conftest import ServerProcess

WAIT_S = 60.0
"""How long a line of the log is waited for; only a server that is broken takes as long."""

NAMES = 'NAME = "{word}"\n'
BASE = '''"""What others need."""
from petsage import AppKey, Feature, Routes
from .names import NAME

routes = Routes()
BASE = AppKey("BASE", dict)

@routes.get("/base")
async def say() -> dict[str, list[str]]:
    return {"words": [NAME]}

async def lifespan(app):
    app[BASE] = {"word": NAME, "open": True}
    yield
    app[BASE]["open"] = False

feature = Feature(routes, lifespan=lifespan)
'''
ABOVE = '''"""Says its word, and that of what it needs."""
from petsage import Feature
from .life import lifespan
from .routes import routes

feature = Feature(routes, needs=("base",), lifespan=lifespan)
'''
WORDS = 'WORD = "{word}"\n'
DEEP = "from ..words import WORD as DEEP\n"
MODELS = '''"""What goes in and out."""
from pydantic import BaseModel
from .words import WORD

class Ask(BaseModel):
    text: str
    word: str = WORD

class Said(BaseModel):
    own: list[str]
    base: list[str]
    text: str = ""
    word: str = WORD
'''
LIFE = '''"""What it has while it serves."""
from features.base import BASE
from petsage import AppKey
from .words import WORD

LIFE = AppKey("LIFE", dict)

async def lifespan(app):
    app[LIFE] = {"word": WORD, "open": True}
    yield
    app[LIFE]["open"] = False
'''
ROUTES = '''"""Its answers."""
import asyncio
from typing import Annotated
from aiohttp import web
from features.base import BASE
from features.base.names import NAME
from petsage import FromApp, Reply, Routes
from .life import LIFE
from .models import Ask, Said
from .more.deep import DEEP
from .words import WORD

routes = Routes()
Life = Annotated[dict, FromApp(LIFE)]
Base = Annotated[dict, FromApp(BASE)]

def said(life, base, text=""):
    open_ = WORD if life["open"] else "closed"
    base_open = NAME if base["open"] else "closed"
    return Said(own=[WORD, DEEP, life["word"], open_], base=[NAME, base["word"], base_open],
                text=text)

@routes.get("/above")
async def say(life: Life, base: Base) -> Reply[Said]:
    return Reply(said(life, base), headers={"X-Word": WORD})

@routes.get("/above/{text}")
async def echo(text: str, life: Life, base: Base) -> Said:
    return said(life, base, text)

@routes.post("/above")
async def take(ask: Ask, life: Life, base: Base) -> Said:
    answer = said(life, base, ask.text)
    answer.own.append(ask.word)
    return answer

@routes.get("/slow")
async def slow(life: Life, base: Base) -> Said:
    before = said(life, base)
    await asyncio.sleep(0.2)
    after = said(life, base)
    return Said(own=[*before.own, *after.own], base=[*before.base, *after.base])

@routes.get("/stream")
async def stream(request: web.Request, life: Life) -> web.StreamResponse:
    answer = web.StreamResponse()
    await answer.prepare(request)
    for _ in range(5):
        await answer.write(f"{WORD} {life['word']} ".encode())
        await asyncio.sleep(0.02)
    await answer.write_eof()
    return answer
'''
STILL = '''"""Never changes."""
import secrets
from typing import Annotated
from petsage import AppKey, Feature, FromApp, Routes

routes = Routes()
TOKEN = AppKey("TOKEN", str)

@routes.get("/still/{text}")
async def say(text: str, token: Annotated[str, FromApp(TOKEN)]) -> dict[str, str]:
    return {"token": token, "text": text}

async def lifespan(app):
    app[TOKEN] = secrets.token_hex(8)
    yield
    app[TOKEN] = "ended"

feature = Feature(routes, lifespan=lifespan)
'''
VISITOR = '''"""Comes and goes."""
from petsage import Feature, Routes
from .words import WORD

routes = Routes()

@routes.get("/{name}")
async def say() -> dict[str, str]:
    return {{"word": WORD}}

feature = Feature(routes)
'''

BREAKS: dict[str, dict[str, str | None]] = {
    "syntax-error": {"routes": "def"},
    "import-failed": {"life": "1 / 0"},
    "missing-package": {"life": "import no_such_package_anywhere"},
    "check-timeout": {"life": "while True:\n    pass"},
    "check-crashed": {"life": "import os\nos.abort()"},
    "lifespan-failed": {"life": LIFE.replace("    yield", "    1 / 0\n    yield")},
    "route-clash": {"routes": ROUTES.replace('"/slow"', '"/still/{text}"')},
    "handler-not-async": {"routes": ROUTES.replace("async def say", "def say")},
    "dependent": {"models": MODELS.replace("class Said", "class Told")},
    "half-a-file": {"routes": ROUTES.partition("c def take")[0]},
    "half-a-folder": {"models": None},
}
"""What a change of `above` is broken by; None takes a file away."""


def write(folder: Path, files: Mapping[str, str | None]) -> None:
    """Writes a feature's files one after another, as `cp -r` does; None takes one away."""
    for within, text in files.items():
        file = folder / f"{within}.py"
        if text is None:
            file.unlink()
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")


def above(word: str) -> dict[str, str]:
    """The files of `above`."""
    texts = {"words": WORDS.format(word=word), "more/deep": DEEP, "models": MODELS, "life": LIFE}
    return {**texts, "routes": ROUTES, "__init__": ABOVE}


def base(word: str) -> dict[str, str]:
    """The files of `base`."""
    return {"names": NAMES.format(word=word), "__init__": BASE}


def visitor(name: str, word: str) -> dict[str, str]:
    """The files of one that comes and goes."""
    return {"words": WORDS.format(word=word), "__init__": VISITOR.format(name=name)}


def furnish(features: Path) -> None:
    """What is there when the server starts."""
    write(features / "base", base("w0"))
    write(features / "above", above("w0"))
    write(features / "still", {"__init__": STILL})


class Told:
    """What a server logs, but its access lines, which are counted; any line can be waited for."""

    def __init__(self, process: ServerProcess) -> None:
        self.process = process
        self.lines: list[dict[str, Any]] = []
        self.access_lines = 0
        self._more = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        stdout = self.process._process.stdout
        assert stdout is not None
        for raw in stdout:
            if b'"petsage.access"' in raw:
                self.access_lines += 1
                continue
            with self._more:
                self.lines.append(json.loads(raw))
                self._more.notify_all()
        with self._more:
            self._ended = True
            self._more.notify_all()

    @contextlib.contextmanager
    def expect(self, *words: str) -> Iterator[None]:
        """Waits, behind what is done within, for a line with these words."""
        with self._expect(len(self.lines), *words):
            yield

    @contextlib.contextmanager
    def expect_from_the_start(self, *words: str) -> Iterator[None]:
        """As `expect`, and the line may have come before."""
        with self._expect(0, *words):
            yield

    @contextlib.contextmanager
    def _expect(self, since: int, *words: str) -> Iterator[None]:
        yield

        def found() -> bool:
            return any(all(w in x["message"] for w in words) for x in self.lines[since:])

        with self._more:
            self._more.wait_for(lambda: found() or self._ended, WAIT_S)
        assert found(), (words, [x["message"] for x in self.lines[since:]])

    def join(self) -> None:
        """Waits until the server has nothing more to say."""
        self._reader.join()


class Changes:
    """Changes the features of a running server, one change after another, good and broken mixed.

    Args:
        features: the folder.
        told: what the server logs.
        breaks: what changes are broken by, of `BREAKS`.

    Attributes:
        made: how many were made, by their kind.
        words: those that an answer may carry.
        visiting: by name, whether it is served: None while that changes.
        moves: how often that has changed, or begun to.
    """

    def __init__(self, features: Path, told: Told, breaks: Collection[str] = tuple(BREAKS)) -> None:
        self.made: dict[str, int] = {}
        self.words = {"w0"}
        self.visiting: dict[str, bool | None] = {"guest": False, "lodger": False}
        self.moves = 0
        self._features = features
        self._told = told
        self._numbers = itertools.count(1)
        self._breaks = itertools.cycle(breaks)
        # In this order, and eleven changes until what came has gone.
        kinds: Sequence[Callable[[], Iterator[str]]] = (
            *(self._edit_above, self._break_and_mend, self._edit_base, self._add),
            *(self._break_and_mend, self._rename, self._break_and_mend, self._remove),
        )
        self._making = (made for kind in itertools.cycle(kinds) for made in kind())

    def make(self, count: int) -> None:
        """Makes so many changes, each of which is waited for."""
        for made in itertools.islice(self._making, count):
            self.made[made] = self.made.get(made, 0) + 1

    def _word(self) -> str:
        word = f"w{next(self._numbers)}"
        self.words.add(word)
        return word

    def _edit_above(self) -> Iterator[str]:
        with self._told.expect("Feature above was changed"):
            write(self._features / "above", {"words": WORDS.format(word=self._word())})
        yield "edit"

    def _edit_base(self) -> Iterator[str]:
        with self._told.expect("Feature above was restarted"):
            write(self._features / "base", {"names": NAMES.format(word=self._word())})
        yield "edit of what is needed"

    def _break_and_mend(self) -> Iterator[str]:
        kind = next(self._breaks)
        with self._told.expect("Feature above goes on with generation"):
            broken = {"words": WORDS.format(word="broken"), **BREAKS[kind]}
            write(self._features / "above", broken)
        yield f"broken: {kind}"
        with self._told.expect("Feature above was changed"):
            write(self._features / "above", above(self._word()))
        yield "mended"

    def _add(self) -> Iterator[str]:
        with self._moving("guest", served=True), self._told.expect("Feature guest was added"):
            write(self._features / "guest", visitor("guest", self._word()))
        yield "added"

    def _rename(self) -> Iterator[str]:
        with (
            self._moving("guest", served=False),
            self._moving("lodger", served=True),
            self._told.expect("Feature lodger was added"),
            self._told.expect("Feature guest was removed"),
        ):
            text = VISITOR.format(name="lodger")
            (self._features / "guest").rename(self._features / "lodger")
            (self._features / "lodger" / "__init__.py").write_text(text, encoding="utf-8")
        yield "renamed"

    def _remove(self) -> Iterator[str]:
        with self._moving("lodger", served=False), self._told.expect("Feature lodger was removed"):
            shutil.rmtree(self._features / "lodger")
        yield "removed"

    @contextlib.contextmanager
    def _moving(self, name: str, *, served: bool) -> Iterator[None]:
        self.moves += 1
        self.visiting[name] = None
        yield
        self.visiting[name] = served
        self.moves += 1
