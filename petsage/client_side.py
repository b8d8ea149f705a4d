"""aiohttp's client side: imported when it is asked for (`docs/decisions/0010-client-side.md`)."""

import importlib
import importlib.util
import sys
import threading
from collections.abc import Iterable
from importlib.metadata import version
from types import ModuleType
from typing import Any, Final

_ROOT: Final = "aiohttp"


def postpone_client() -> None:
    """Imports `aiohttp.web` alone; the rest of `aiohttp` comes at the first use of any of it.

    Where aiohttp is imported already, or does not let itself be imported so, it stays as ever.
    """
    spec = importlib.util.find_spec(_ROOT) if _ROOT not in sys.modules else None
    if spec is None or spec.loader is None:
        return
    sys.modules[_ROOT] = module = importlib.util.module_from_spec(spec)
    module.__class__ = _Postponed
    try:
        importlib.import_module(f"{_ROOT}.web")
    except Exception:  # noqa: BLE001 - what is really wrong is raised by the next import
        for name in list(sys.modules):
            if f"{name}.".startswith(f"{_ROOT}."):
                del sys.modules[name]


def import_client_for(modules: Iterable[object]) -> None:
    """Imports it now, off the event loop, where one of `modules` has `aiohttp` to ask it of."""
    root = sys.modules.get(_ROOT)
    if isinstance(root, _Postponed) and any(
        value is root
        for module in modules
        if isinstance(module, ModuleType)  # a module may put anything in its place
        for value in list(vars(module).values())
    ):
        dir(root)


def is_postponed() -> bool:
    """Whether it may still have to be imported."""
    return isinstance(sys.modules.get(_ROOT), _Postponed)


def import_client() -> None:
    """Imports it now, if it was postponed."""
    if is_postponed():
        dir(sys.modules[_ROOT])


class _Postponed(ModuleType):
    """A package whose own `__init__` runs at the first use of what is no module of it."""

    def __getattr__(self, name: str) -> Any:
        if name == "__version__":  # which `aiohttp.http` wants
            self.__version__ = version(_ROOT)
            return self.__version__
        if importlib.util.find_spec(f"{_ROOT}.{name}") is not None:
            return importlib.import_module(f"{_ROOT}.{name}")
        self._run()
        if type(self) is _Postponed:  # it runs, further out in this very thread
            raise AttributeError(f"module {_ROOT!r} has no attribute {name!r} yet")
        return getattr(self, name)

    def __dir__(self) -> Iterable[str]:
        self._run()
        return ModuleType.__dir__(self)  # it is no longer of this class

    def _run(self) -> None:
        """Runs it once and waits until it has run; an error is raised, and the next use retries."""
        global _is_running  # noqa: PLW0603 - the module that it would be kept in is aiohttp's
        spec = self.__spec__
        with _lock:
            if type(self) is not _Postponed or _is_running or spec is None or spec.loader is None:
                return
            _is_running = True
            try:
                spec.loader.exec_module(self)
                self.__class__ = ModuleType  # type: ignore[assignment]  # what it is from now on
            finally:
                _is_running = False


_lock: Final = threading.RLock()
_is_running = False
