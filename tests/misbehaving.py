"""Features each of whose endpoints misbehaves in its own way, and somebody who asks another."""

import http.client
import threading
import time

STEADY = '''"""Is asked all the time."""
from petsage import Feature, Routes

routes = Routes()

@routes.get("/steady")
async def steady() -> dict[str, str]:
    """Answers."""
    return {"is": "there"}

feature = Feature(routes)
'''

WAITS = STEADY.replace("/steady", "/waits").replace(
    "    return", "    import asyncio\n    await asyncio.sleep(0.01)\n    return"
)

RAISES = '''"""Its handlers raise."""
import asyncio
from aiohttp import web
from petsage import Feature, Routes

routes = Routes()

class Odd(BaseException):
    """No Exception."""

class Mute(Exception):
    def __str__(self):
        raise SystemExit("the inside")
    __repr__ = __str__

class Shy(Exception):
    @property
    def __class__(self):
        raise RuntimeError("the inside")

class Hash(Exception):
    __hash__ = None
    def __eq__(self, other):
        raise SystemExit("the inside")

def chained(count):
    error = None
    for number in range(count):
        next_one = RuntimeError(number)
        next_one.__cause__ = error
        error = next_one
    return error

def nested(count):
    error = ValueError("the inside")
    for _ in range(count):
        error = ExceptionGroup("the inside", [error])
    return error

def circular():
    one, other = RuntimeError(1), RuntimeError(2)
    one.__cause__, other.__cause__ = other, one
    return one

def deep():
    return deep()

async def timed_out():
    async with asyncio.timeout(0.001):
        await asyncio.sleep(1)

async def cancels_itself():
    asyncio.current_task().cancel()
    await asyncio.sleep(1)

async def group():
    async def fail():
        raise SystemExit("the inside")
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(fail())

async def exits_in_task():
    async def fail():
        raise SystemExit("the inside")
    await asyncio.create_task(fail())

async def interrupts_in_task():
    async def fail():
        raise KeyboardInterrupt
    await asyncio.gather(fail(), fail())

async def exits_in_thread():
    def fail():
        raise SystemExit("the inside")
    await asyncio.to_thread(fail)

async def exits_in_callback():
    def fail():
        raise SystemExit("the inside")
    asyncio.get_running_loop().call_soon(fail)
    await asyncio.sleep(0.01)
    raise RuntimeError("the inside")

async def stops_loop():
    asyncio.get_running_loop().stop()
    await asyncio.sleep(0.01)
    raise RuntimeError("the inside")

async def closes_loop():
    asyncio.get_running_loop().close()

async def runs_loop():
    asyncio.run(asyncio.sleep(0))

async def stop_iteration():
    next(iter(()))

async def stop_async():
    raise StopAsyncIteration("the inside")

def raiser(make):
    async def call():
        raise make()
    return call

KINDS = {
    "exit": raiser(lambda: SystemExit("the inside")),
    "interrupt": raiser(KeyboardInterrupt),
    "cancelled": raiser(asyncio.CancelledError),
    "cancels-itself": cancels_itself,
    "generator-exit": raiser(GeneratorExit),
    "odd": raiser(Odd),
    "group": raiser(lambda: ExceptionGroup("the inside", [ValueError(), KeyError()])),
    "base-group": raiser(lambda: BaseExceptionGroup("the inside", [SystemExit(), Odd()])),
    "task-group": group,
    "nested-groups": raiser(lambda: nested(1500)),
    "recursion": raiser(deep),
    "memory": raiser(MemoryError),
    "stop": stop_iteration,
    "stop-async": stop_async,
    "mute": raiser(Mute),
    "shy": raiser(Shy),
    "unhashable": raiser(Hash),
    "chained": raiser(lambda: chained(10_000)),
    "circular": raiser(circular),
    "timeout": timed_out,
    "exit-in-task": exits_in_task,
    "interrupt-in-task": interrupts_in_task,
    "exit-in-thread": exits_in_thread,
    "exit-in-callback": exits_in_callback,
    "stops-loop": stops_loop,
    "closes-loop": closes_loop,
    "runs-loop": runs_loop,
    "long": raiser(lambda: RuntimeError("the inside " * 1_000_000)),
    "surrogate": raiser(lambda: RuntimeError("the inside \\ud800 \\x00 \\x1b[2J")),
    "many-digits": raiser(lambda: RuntimeError(10**5000)),
}

@routes.get("/raises/{kind}")
async def raises(kind: str) -> dict[str, str]:
    await KINDS[kind]()
    return {"no": "error"}

def direct(kind):
    @routes.get("/direct-raises/" + kind)
    async def raises_directly() -> dict[str, str]:
        await KINDS[kind]()
        return {"no": "error"}

for each in KINDS:
    direct(each)

feature = Feature(routes)
'''


RETURNS = '''"""Its handlers return what they must not."""
import asyncio
from dataclasses import dataclass
from typing import Any
from aiohttp import web
from pydantic import BaseModel
from petsage import Feature, Reply, Routes

routes = Routes()

class Pet(BaseModel):
    name: str
    age: int = 0

class Lies(BaseModel):
    name: str
    @property
    def age(self):
        raise SystemExit("the inside")

class Stranger:
    def __repr__(self):
        raise SystemExit("the inside")

def circular():
    value = {}
    value["me"] = value
    return value

def deep(count):
    value = []
    for _ in range(count):
        value = [value]
    return value

def generator():
    yield 1

async def coroutine():
    return {}

async def endless():
    number = 0
    while True:
        number += 1
        yield b"x" * 1000
        await asyncio.sleep(0.001)

async def midway():
    yield b"begun"
    raise RuntimeError("the inside")

async def at_once():
    raise RuntimeError("the inside")
    yield b""

async def texts():
    yield "no bytes"

async def hangs():
    yield b"begun"
    await asyncio.Event().wait()

class Raises(dict):
    def items(self):
        raise SystemExit("the inside")
    __iter__ = keys = values = items

KEPT = web.Response(text="kept")
STREAM = web.StreamResponse()

TYPED = {
    "other-type": lambda: 3,
    "none": lambda: None,
    "constructed": lambda: Pet.model_construct(name=3, age="x"),
    "missing": lambda: Pet.model_construct(),
    "other-model": lambda: Lies(name="x"),
    "class": lambda: Pet,
    "stranger": lambda: Stranger(),
    "generator": generator,
    "coroutine": coroutine,
    "bytes": lambda: b"abc",
    "exception": lambda: RuntimeError("the inside"),
    "reply-other": lambda: Reply(3),
    "reply-reply": lambda: Reply(Reply(Pet(name="x"))),
    "reply-text-status": lambda: Reply(Pet(name="x"), status="200"),
    "future": lambda: asyncio.get_running_loop().create_future(),
}
LOOSE = {
    "nan": lambda: float("nan"),
    "infinite": lambda: {"x": float("inf")},
    "circular": circular,
    "deep": lambda: deep(200),
    "deeper": lambda: deep(200_000),
    "set": lambda: {1, 2},
    "bytes": lambda: b"\\xff\\xfe",
    "surrogate": lambda: "\\ud800",
    "many-digits": lambda: 10**5000,
    "object": lambda: Stranger(),
    "keys": lambda: {Stranger(): 1},
    "tuple-keys": lambda: {(1, 2): 3},
    "generator": generator,
    "raising-dict": lambda: Raises(x=1),
    "lambda": lambda: (lambda: 1),
    "million": lambda: ["x" * 100] * 100_000,
}

def with_length(length, text=b"0123456789"):
    response = web.Response(body=text)
    response.headers["Content-Length"] = str(length)
    return response

def finished():
    response = web.Response(text="x")
    response._eof_sent = True
    return response

async def sent(request):
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"sent")
    await response.write_eof()
    return response

async def two(request):
    await sent(request)
    return web.Response(text="another")

async def lies_short(request):
    response = web.StreamResponse()
    response.content_length = 100
    await response.prepare(request)
    await response.write(b"short")
    return response

async def lies_long(request):
    response = web.StreamResponse()
    response.content_length = 3
    await response.prepare(request)
    await response.write(b"long enough")
    return response

def header(name, value):
    response = web.Response(text="x")
    response.headers[name] = value
    return response

def cookie(value):
    response = web.Response(text="x")
    response.cookies["a"] = value
    return response

def reason(text):
    return web.Response(text="x", reason=text)

def status(number):
    response = web.Response(text="x")
    response._status = number
    return response

RAW = {
    "raw-none": lambda request: None,
    "raw-text": lambda request: "text",
    "raw-class": lambda request: web.Response,
    "kept": lambda request: KEPT,
    "stream-kept": lambda request: STREAM,
    "unprepared": lambda request: web.StreamResponse(),
    "websocket": lambda request: web.WebSocketResponse(),
    "finished": lambda request: finished(),
    "sent": sent,
    "two": two,
    "length-more": lambda request: with_length(20),
    "length-less": lambda request: with_length(3),
    "length-none": lambda request: with_length("none"),
    "length-minus": lambda request: with_length(-1),
    "lies-short": lies_short,
    "lies-long": lies_long,
    "both-lengths": lambda request: header("Transfer-Encoding", "chunked"),
    "crlf-name": lambda request: header("X-A\\r\\nX-B", "c"),
    "crlf-value": lambda request: header("X-A", "b\\r\\nX-B: c"),
    "nul-value": lambda request: header("X-A", "b\\0"),
    "header-surrogate": lambda request: header("X-A", "\\ud800"),
    "header-many": lambda request: header("X-A", "x" * 1_000_000),
    "cookie-crlf": lambda request: cookie("a\\r\\nX-B: c"),
    "reason-crlf": lambda request: reason("x\\r\\nX-B: c"),
    "status-0": lambda request: status(0),
    "status-text": lambda request: status("x"),
    "status-100": lambda request: web.Response(status=101),
    "body-midway": lambda request: web.Response(body=midway()),
    "body-at-once": lambda request: web.Response(body=at_once()),
    "body-texts": lambda request: web.Response(body=texts()),
    "body-other": lambda request: web.Response(body=Stranger()),
    "file-missing": lambda request: web.FileResponse("/no/such/file"),
    "file-folder": lambda request: web.FileResponse("/tmp"),
    "stops": lambda request: next(iter(())),
}
ENDLESS = {"body-endless": lambda request: web.Response(body=endless()), "body-hangs": lambda request: web.Response(body=hangs())}

@routes.get("/typed/{kind}")
async def typed(kind: str) -> Pet:
    return TYPED[kind]()

@routes.get("/loose/{kind}")
async def loose(kind: str) -> Any:
    return LOOSE[kind]()

@routes.get("/raw/{kind}")
async def raw(request: web.Request, kind: str) -> web.StreamResponse:
    answer = {**RAW, **ENDLESS}[kind](request)
    return await answer if asyncio.iscoroutine(answer) else answer

def direct(path, kind, make, returns):
    async def answer():
        return make()
    answer.__annotations__["return"] = returns
    routes.get(path + kind)(answer)

for kind, make in TYPED.items():
    direct("/direct-typed/", kind, make, Pet)
for kind, make in LOOSE.items():
    direct("/direct-loose/", kind, make, Any)

@routes.get("/direct-raw/kept")
async def kept() -> web.StreamResponse:
    return KEPT

@routes.get("/reply-header/{kind}")
async def reply_header(kind: str) -> Reply[dict[str, str]]:
    return Reply({"a": "b"}, headers={"crlf": {"X-A": "b\\r\\nX-B: c"}, "number": {"X-A": 3}, "name": {"X\\r\\nA": "b"}, "length": {"Content-Length": "3"}, "none": {"X-A": None}, "wide": {"X-A": "\\ud800"}}[kind])

for name, value in {"crlf": {"X-A": "b\\r\\nX-B: c"}, "number": {"X-A": 3}, "name": {"X\\r\\nA": "b"}, "length": {"Content-Length": "3"}, "wide": {"X-A": "\\ud800"}}.items():
    def direct_header(value):
        async def answer() -> Reply[dict[str, str]]:
            return Reply({"a": "b"}, headers=value)
        return answer
    routes.get("/direct-reply-header/" + name)(direct_header(value))

feature = Feature(routes)
'''

LEAVES = '''"""What it begins fails when its handlers have answered, or never ends."""
import asyncio
import gc
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from petsage import Feature, Routes

routes = Routes()
KEPT = []

class Odd(BaseException):
    """No Exception."""

class Shy(Exception):
    @property
    def __class__(self):
        raise RuntimeError("the inside")

class ShyExit(SystemExit):
    @property
    def __class__(self):
        raise SystemExit("the inside")

class MuteStop(RuntimeError):
    def __str__(self):
        raise SystemExit("the inside")

async def fails(kind=RuntimeError):
    await asyncio.sleep(0.01)
    raise kind("the inside")

async def never():
    await asyncio.Event().wait()

async def stubborn():
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            continue

def call(kind=RuntimeError):
    raise kind("the inside")

async def items():
    try:
        yield 1
    finally:
        raise RuntimeError("the inside")

class Broken:
    def __init__(self):
        self.me = self
    def __del__(self):
        raise RuntimeError("the inside")

class Quits:
    def __del__(self):
        raise SystemExit("the inside")

class Logs:
    def __init__(self):
        self.me = self
    def __del__(self):
        import logging
        logging.getLogger(__name__).warning("a finalizer logs")

class Target:
    """Is referred to weakly."""

def task(kind=RuntimeError):
    asyncio.create_task(fails(kind), name="stray")

def kept_task():
    KEPT.append(asyncio.create_task(never(), name="never"))

def stubborn_task():
    KEPT.append(asyncio.create_task(stubborn(), name="stubborn"))

def storm():
    for _ in range(1000):
        task()

async def generator():
    async for _ in items():
        break

def weak():
    target = Target()
    KEPT.append(weakref.ref(target, lambda _: call()))

def protocol():
    import socket
    ours, theirs = socket.socketpair()
    KEPT.append(theirs)
    class Own(asyncio.Protocol):
        def connection_made(self, transport):
            call()
    return asyncio.get_running_loop().create_connection(Own, sock=ours)

def signals():
    import signal
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, call)
    signal.raise_signal(signal.SIGUSR1)

KINDS = {
    "task": task,
    "task-odd": lambda: task(Odd),
    "task-exit": lambda: task(SystemExit),
    "task-interrupt": lambda: task(KeyboardInterrupt),
    "task-generator-exit": lambda: task(GeneratorExit),
    "task-shy": lambda: task(Shy),
    "task-shy-exit": lambda: task(ShyExit),
    "task-mute": lambda: task(MuteStop),
    "storm": storm,
    "soon": lambda: asyncio.get_running_loop().call_soon(call),
    "later": lambda: asyncio.get_running_loop().call_later(0.01, call),
    "later-exit": lambda: asyncio.get_running_loop().call_later(0.01, call, SystemExit),
    "callback": lambda: asyncio.create_task(asyncio.sleep(0)).add_done_callback(lambda _: call()),
    "future": lambda: asyncio.get_running_loop().create_future().set_exception(RuntimeError("the inside")),
    "executor": lambda: asyncio.get_running_loop().run_in_executor(None, call),
    "thread": lambda: threading.Thread(target=call, name="stray").start(),
    "thread-exit": lambda: threading.Thread(target=call, args=(SystemExit,)).start(),
    "timer": lambda: threading.Timer(0.01, call).start(),
    "generator": generator,
    "finalizer": Broken,
    "finalizer-exit": Quits,
    "finalizer-logs": Logs,
    "weak": weak,
    "unawaited": never,
    "protocol": protocol,
    "signal": signals,
    "never": kept_task,
    "stubborn": stubborn_task,
    "job": lambda: KEPT.append(asyncio.get_running_loop().run_in_executor(None, time.sleep, 4)),
    "jobs": lambda: KEPT.extend(asyncio.get_running_loop().run_in_executor(None, time.sleep, 4) for _ in range(100)),
}

@routes.get("/leaves/{kind}")
async def leaves(kind: str) -> dict[str, str]:
    begun = KINDS[kind]()
    if asyncio.iscoroutine(begun) and kind != "unawaited":
        await begun
    del begun
    await asyncio.sleep(0.05)
    gc.collect()
    return {"left": kind}

feature = Feature(routes)
'''

LOGS = '''"""It logs what cannot be logged."""
import logging
import sys
import threading
import warnings
from petsage import Feature, Routes

routes = Routes()
log = logging.getLogger(__name__)
apart = logging.getLogger(__name__ + ".apart")

class Mute:
    def __str__(self):
        raise RuntimeError("the inside")
    __repr__ = __str__

class Quits:
    def __str__(self):
        raise SystemExit("the inside")
    __repr__ = __str__

class Again:
    def __str__(self):
        log.warning("%s", self)
        return "again"

class BrokenHandler(logging.Handler):
    def emit(self, record):
        raise RuntimeError("the inside")

class QuittingHandler(logging.Handler):
    def handle(self, record):
        raise SystemExit("the inside")

class Echo(logging.Handler):
    def emit(self, record):
        log.warning("an echo")

class BrokenFormatter(logging.Formatter):
    def format(self, record):
        raise RuntimeError("the inside")

def with_handler(handler):
    apart.addHandler(handler)
    try:
        apart.warning("it is logged")
    finally:
        apart.removeHandler(handler)

def with_filter(keep):
    apart.addFilter(keep)
    try:
        apart.warning("it is logged")
    finally:
        apart.removeFilter(keep)

def quits(record):
    raise SystemExit("the inside")

def breaks(record):
    raise RuntimeError("the inside")

def spoils(record):
    record.msg = record.args = record.levelname = record.name = object()
    return True

def formatted():
    handler = logging.StreamHandler()
    handler.setFormatter(BrokenFormatter())
    with_handler(handler)

def with_factory():
    before = logging.getLogRecordFactory()
    def factory(*args, **kwargs):
        raise RuntimeError("the inside")
    logging.setLogRecordFactory(factory)
    try:
        log.warning("it is logged")
    finally:
        logging.setLogRecordFactory(before)

def printed():
    print("it is logged", Ellipsis)
    print(chr(0xD800) + "it is logged")
    sys.stdout.flush()

def circular():
    value = {}
    value["me"] = value
    return value

KINDS = {
    "arguments": lambda: log.warning("it is logged %s %d", "x"),
    "format": lambda: log.warning("it is logged %", 1),
    "mute": lambda: log.warning("it is logged %s", Mute()),
    "quits": lambda: log.warning("it is logged %s", Quits()),
    "quits-message": lambda: log.warning(Quits()),
    "extra-quits": lambda: log.warning("it is logged", extra={"x": Quits(), "y": Mute()}),
    "extra-reserved": lambda: log.warning("it is logged", extra={"message": 1, "name": 2, "timestamp": 3, "feature": 4, "args": 5}),
    "extra-circular": lambda: log.warning("it is logged", extra={"x": circular()}),
    "extra-text": lambda: log.warning("it is logged", extra="text"),
    "digits": lambda: log.warning("it is logged %d", 10**5000),
    "extra-digits": lambda: log.warning("it is logged", extra={"x": 10**5000}),
    "surrogate": lambda: log.warning("it is logged \\ud800"),
    "large": lambda: log.warning("it is logged " + "x" * 10_000_000),
    "large-extra": lambda: log.warning("it is logged", extra={"x": ["y" * 1000] * 10_000}),
    "deep": lambda: log.warning("it is logged", extra={"x": eval("[" * 90 + "]" * 90)}),
    "level": lambda: log.log(10**30, "it is logged"),
    "level-text": lambda: log.log("WARNING", "it is logged"),
    "stack": lambda: log.warning("it is logged", stack_info=True, exc_info=Quits()),
    "exc-info": lambda: log.warning("it is logged", exc_info=(1, 2, 3)),
    "again": lambda: log.warning("%s", Again()),
    "handler": lambda: with_handler(BrokenHandler()),
    "handler-quits": lambda: with_handler(QuittingHandler()),
    "handler-echo": lambda: with_handler(Echo()),
    "formatter": formatted,
    "filter": lambda: with_filter(breaks),
    "filter-quits": lambda: with_filter(quits),
    "filter-spoils": lambda: with_filter(spoils),
    "filter-none": lambda: with_filter(3),
    "factory": with_factory,
    "record": lambda: logging.getLogger().handle(logging.makeLogRecord({"msg": "it is logged", "levelno": 30, "created": float("nan")})),
    "record-bare": lambda: logging.getLogger().handlers[0].handle(object()),
    "printed": printed,
    "printed-bytes": lambda: sys.stdout.write(b"it is logged"),
    "stdout-closed": lambda: sys.stdout.close(),
    "stderr": lambda: sys.stderr.write("it is no line of the log" + chr(10)),
    "warning": lambda: warnings.warn("it is logged"),
    "flood": lambda: [log.warning("it is logged") for _ in range(20_000)],
    "after": lambda: log.warning("it is logged"),
}

@routes.get("/logs/{kind}")
async def logs(kind: str) -> dict[str, str]:
    KINDS[kind]()
    return {"logged": kind}

feature = Feature(routes)
'''

MEDDLES = '''"""Its handlers change what is the server's."""
import asyncio
import builtins
import gc
import json
import locale
import logging
import os
import resource
import signal
import sys
import threading
import time
import petsage.answers
from aiohttp import web
from petsage import Feature, Routes

routes = Routes()

LEFT = []

async def fails():
    raise RuntimeError("the inside")

def cancel(tasks):
    for task in tasks:
        task.cancel()

async def cancels_all():
    cancel(asyncio.all_tasks())
    await asyncio.sleep(0.1)

async def cancels_others():
    cancel(asyncio.all_tasks() - {asyncio.current_task()})

def cancels_later():
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        asyncio.get_running_loop().call_soon(task.cancel)

async def cancels_on():
    end = time.monotonic() + 1
    while time.monotonic() < end:
        await cancels_others()
        await asyncio.sleep(0)

def begins_cancelling():
    LEFT.append(asyncio.create_task(cancels_on()))

async def forks_amid_a_wake_up():
    # What is to wake the loop is on its way, and the copy comes to it first.
    asyncio.get_running_loop().call_soon_threadsafe(lambda: None)
    if os.fork():
        time.sleep(0.2)
        await asyncio.to_thread(time.sleep, 0)

def sets_handler():
    asyncio.get_running_loop().set_exception_handler(lambda *_: 1 / 0)
    asyncio.create_task(fails())

def limits_descriptors():
    resource.setrlimit(resource.RLIMIT_NOFILE, (25, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))

def disables_loggers():
    logging.getLogger("petsage").disabled = logging.getLogger("petsage.access").disabled = True

def breaks(*_, **__):
    raise RuntimeError("the inside")

def no_sleep():
    asyncio.sleep = None

def no_class():
    builtins.isinstance = None

def breaks_dumps():
    json.dumps = breaks

def breaks_answers():
    web.Response.prepare = breaks

def breaks_core():
    petsage.answers.stamp = breaks

def no_formatter():
    del logging.Formatter

def sets_zone():
    os.environ["TZ"] = "Pacific/Chatham"
    time.tzset()

def sets_variable():
    os.environ["PETSAGE_SERVER__PORT"] = "nonsense"

def by_computed_names():
    for name in ("create_task", "timeout"):
        setattr(sys.modules["async" + "io"], name, None)

def no_hooks():
    sys.excepthook = sys.unraisablehook = threading.excepthook = sys.stdout = None

LOOP = {
    "cancels-all": cancels_all,
    "cancels-others": cancels_others,
    "cancels-later": cancels_later,
    "stops-later": lambda: asyncio.get_running_loop().call_soon(asyncio.get_running_loop().stop),
    "ends-generators": lambda: asyncio.get_running_loop().shutdown_asyncgens(),
    "ends-threads": lambda: asyncio.get_running_loop().shutdown_default_executor(),
    "makes-no-tasks": lambda: asyncio.get_running_loop().set_task_factory(lambda *_, **__: None),
    "breaks-tasks": lambda: asyncio.get_running_loop().set_task_factory(lambda *_, **__: 1 / 0),
    "exception-handler": sets_handler,
    "forks": lambda: os.fork() and None,
    "forks-awake": forks_amid_a_wake_up,
}
PROCESS = {
    "folder": lambda: os.chdir("/"),
    "umask": lambda: os.umask(0o777),
    "term": lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN),
    "interrupt": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    "descriptors": limits_descriptors,
    "handlers": lambda: logging.getLogger().handlers.clear(),
    "disable": lambda: logging.disable(logging.CRITICAL),
    "loggers": disables_loggers,
    "recursion": lambda: sys.setrecursionlimit(100),
    "collection": gc.disable,
    "hooks": no_hooks,
    "sleep": no_sleep,
    "dumps": breaks_dumps,
    "formatter": no_formatter,
    "zone": sets_zone,
    "locale": lambda: locale.setlocale(locale.LC_ALL, "C"),
    "variable": sets_variable,
}
CALLED = {
    "builtins": no_class,
    "answers": breaks_answers,
    "core": breaks_core,
    "computed": by_computed_names,
}

@routes.get("/meddles/{kind}")
async def meddles(kind: str) -> dict[str, str]:
    begun = {**LOOP, **PROCESS, **CALLED, "on-and-on": begins_cancelling}[kind]()
    if asyncio.iscoroutine(begun):
        await begun
    return {"did": kind}

feature = Feature(routes)
'''

LIFESPANS_HEAD = '''"""Its lifespan misbehaves."""
import asyncio
import sys
import threading
import time
from petsage import Check, Feature, Routes

routes = Routes()

@routes.get("/NAME")
async def answer() -> dict[str, str]:
    """Answers."""
    return {"is": "there"}

class Odd(BaseException):
    """No Exception."""
    def __str__(self):
        raise SystemExit("the inside")

class Shy(Exception):
    """What it says that it is is code that raises."""
    @property
    def __class__(self):
        raise SystemExit("the inside")

async def exits():
    sys.exit("the inside")

async def stubborn():
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            continue

'''
LIFESPANS = {
    # name: (what is in the folder, what becomes of it)
    "hangs_at_start": "async def lifespan(app):\n    await asyncio.Event().wait()\n    yield\n",
    "shy_at_start": "async def lifespan(app):\n    raise Shy\n    yield\n",
    "raises_at_start": "async def lifespan(app):\n    raise Odd\n    yield\n",
    "exits_at_start": "async def lifespan(app):\n    sys.exit(3)\n    yield\n",
    "interrupts_at_start": "async def lifespan(app):\n    raise KeyboardInterrupt\n    yield\n",
    "ends_at_start": "async def lifespan(app):\n    raise GeneratorExit\n    yield\n",
    "cancels_at_start": "async def lifespan(app):\n    asyncio.current_task().cancel()\n    await asyncio.sleep(0)\n    yield\n",
    "never_yields": "async def lifespan(app):\n    if app is None:\n        yield\n",
    "ignores_its_limit": "async def lifespan(app):\n    await stubborn()\n    yield\n",
    "blocks_at_start": "async def lifespan(app):\n    time.sleep(0.7)\n    yield\n",
    "task_exits": "async def lifespan(app):\n    task = asyncio.create_task(exits())\n    yield\n    await asyncio.wait({task})\n",
    "yields_twice": "async def lifespan(app):\n    yield\n    yield\n",
    "hangs_at_stop": "async def lifespan(app):\n    yield\n    await asyncio.Event().wait()\n",
    "shy_at_stop": "async def lifespan(app):\n    yield\n    raise Shy\n",
    "raises_at_stop": "async def lifespan(app):\n    yield\n    raise Odd\n",
    "exits_at_stop": "async def lifespan(app):\n    yield\n    sys.exit(3)\n",
    "ends_at_stop": "async def lifespan(app):\n    yield\n    raise GeneratorExit\n",
    "swallows_its_end": "async def lifespan(app):\n    while True:\n        try:\n            yield\n        except GeneratorExit:\n            continue\n",
    "ignores_its_cut": "async def lifespan(app):\n    yield\n    await stubborn()\n",
    "leaves_a_task": "async def lifespan(app):\n    app['task'] = asyncio.create_task(asyncio.Event().wait(), name='left')\n    yield\n",
    "leaves_stubborn": "async def lifespan(app):\n    app['task'] = asyncio.create_task(stubborn(), name='left')\n    yield\n",
    "leaves_a_thread": "async def lifespan(app):\n    threading.Thread(target=wait, name='left', daemon=True).start()\n    yield\n\ndef wait():\n    threading.Event().wait()\n",
}
CHECKS = {
    "check_exits": "async def check(app):\n    sys.exit(3)\n",
    "check_odd": "async def check(app):\n    raise Odd\n",
    "check_shy": "async def check(app):\n    raise Shy\n",
    "check_ends": "async def check(app):\n    raise GeneratorExit\n",
    "check_cancels": "async def check(app):\n    asyncio.current_task().cancel()\n    await asyncio.sleep(1)\n",
    "check_hangs": "async def check(app):\n    await asyncio.Event().wait()\n",
    "check_stubborn": "async def check(app):\n    await stubborn()\n",
    "check_blocks": "async def check(app):\n    time.sleep(0.6)\n",
    "check_no_coroutine": "def check(app):\n    return 3\n",
    "check_task_exits": "async def check(app):\n    await asyncio.create_task(exits())\n",
}


def feature_with(name: str, source: str) -> str:
    """A feature of one file with a lifespan or a check of its own."""
    keyword = (
        "lifespan=lifespan"
        if "def lifespan" in source
        else "checks=[Check('own', check, timeout_s=0.5)]"
    )
    return f"{LIFESPANS_HEAD.replace('NAME', name)}{source}\nfeature = Feature(routes, {keyword})\n"


class Prober:
    """Asks for `steady` all the time, on a connection of its own, and knows the longest gap.

    Args:
        host: the server's address and port.
    """

    def __init__(self, host: str) -> None:
        self._host = host
        self._gap_s = 0.0
        self._failures: list[str] = []
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="prober")
        self._thread.start()

    def stop(self) -> tuple[float, list[str]]:
        """The longest time between two answers, in seconds, and what was no answer."""
        self._is_over.set()
        self._thread.join()
        return self._gap_s, self._failures

    def _run(self) -> None:
        connection = http.client.HTTPConnection(self._host, timeout=10)
        last = time.monotonic()
        try:
            while not self._is_over.wait(0.02):
                connection.request("GET", "/api/v1/steady")
                answer = connection.getresponse()
                answer.read()
                if answer.status != 200:
                    self._failures.append(f"status {answer.status}")
                now = time.monotonic()
                self._gap_s, last = max(self._gap_s, now - last), now
        except (OSError, http.client.HTTPException) as error:
            self._failures.append(repr(error))
        finally:
            connection.close()
