"""Run a callback once a module has been imported, without importing it here.

Importing vLLM's AITER code in `register()` would cost seconds in every process that loads plugins,
most of which never serve. A finder in front of `sys.meta_path` waits for the import instead. It is
inherited by forked processes, which do not load plugins again.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Sequence
from types import ModuleType

Callback = Callable[[ModuleType], None]


def on_import(module_name: str, callback: Callback) -> None:
    """Call `callback(module)` after `module_name` is imported, at once if it already is.

    Registering the same pair again changes nothing, and a callback runs once a process and module.
    """
    finder = _installed()
    waiting = finder.callbacks.setdefault(module_name, [])
    if callback in waiting:
        return
    waiting.append(callback)
    module = sys.modules.get(module_name)
    if module is not None and not _initialising(module):
        callback(module)


def forget(module_name: str, callback: Callback) -> None:
    """Undo `on_import`; what the callback has done stays done."""
    finder = _installed()
    waiting = finder.callbacks.get(module_name, [])
    if callback in waiting:
        waiting.remove(callback)
    if not waiting:
        finder.callbacks.pop(module_name, None)
    if not finder.callbacks:
        sys.meta_path.remove(finder)


def _initialising(module: ModuleType) -> bool:
    return bool(getattr(module.__spec__, "_initializing", False))


def _installed() -> "_Finder":
    for finder in sys.meta_path:
        if isinstance(finder, _Finder):
            return finder
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    return finder


class _Finder(importlib.abc.MetaPathFinder):
    """Finds nothing itself: lets the real finders find a module, and wraps its loader."""

    def __init__(self) -> None:
        self.callbacks: dict[str, list[Callback]] = {}
        self._finding: set[str] = set()

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        """The real spec with a loader that runs the callbacks afterwards."""
        if fullname not in self.callbacks or fullname in self._finding:
            return None
        self._finding.add(fullname)
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._finding.discard(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self)
        return spec


class _Loader(importlib.abc.Loader):
    """The real loader, and the callbacks after it."""

    def __init__(self, real: importlib.abc.Loader, finder: _Finder) -> None:
        self._real = real
        self._finder = finder

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        """As the real loader does."""
        return self._real.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Run the module, hand it its real loader back, and call who waits."""
        self._real.exec_module(module)
        module.__loader__ = self._real
        if module.__spec__ is not None:
            module.__spec__.loader = self._real
        for callback in tuple(self._finder.callbacks.get(module.__name__, ())):
            callback(module)
