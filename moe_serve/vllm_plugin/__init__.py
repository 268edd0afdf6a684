"""What runs inside vLLM's processes: lossless pads, and the proof of them.

vLLM calls `register()` in every process that loads plugins, possibly more than once; nothing here
imports vLLM or torch until the serving code itself has.
"""

import os
import sys
from functools import partial

from moe_serve.errors import MoeServeError, UsageError
from moe_serve.padding.contract import PaddingPolicy
from moe_serve.vllm_plugin import aligned_padding, worker
from moe_serve.vllm_plugin.import_hook import Callback, forget, on_import
from moe_serve.vllm_plugin.session import Session
from moe_serve.vllm_plugin.settings import OFF, PADDING, PluginSettings, from_environment


class Plugin:
    """The hooks of one process tree; each process gets a session of its own."""

    def __init__(self, settings: PluginSettings, fault: MoeServeError | None = None) -> None:
        self._settings = settings
        self._fault = fault
        self._session: Session | None = None
        self._hooks: tuple[tuple[str, Callback], ...] = (
            (aligned_padding.MODULE, partial(aligned_padding.patch, session=self.session)),
            (worker.MODULE, partial(worker.patch, session=self.session)),
        )

    def session(self) -> Session:
        """This process's session: a fork's child starts anew."""
        if self._session is None or self._session.pid != os.getpid():
            policy = self._settings.policy or PaddingPolicy.ALIGNED
            inherited = self._session.fault if self._session else self._fault
            self._session = Session(settings=self._settings, policy=policy, fault=inherited)
        return self._session

    def install(self) -> None:
        """Wait for vLLM's modules."""
        for name, callback in self._hooks:
            on_import(name, callback)

    def remove(self) -> None:
        """Put everything back as vLLM made it."""
        for name, callback in self._hooks:
            forget(name, callback)
        for name, unpatch in (
            (aligned_padding.MODULE, aligned_padding.unpatch),
            (worker.MODULE, worker.unpatch),
        ):
            if name in sys.modules:
                unpatch(sys.modules[name])
        if self._session is not None:
            self._session.close()


_plugin: Plugin | None = None


def register() -> None:
    """Entry point of `vllm.general_plugins`; again is no change, `MOE_SERVE_PADDING=off` nothing.

    A variable with a value that it cannot have stops the worker when it loads its model, not this
    call: vLLM may log what a plugin raises, and serve on without it.
    """
    global _plugin  # noqa: PLW0603  # vLLM's plugin interface is a bare function
    if _plugin is not None:
        return
    if os.environ.get(PADDING) == OFF:
        return
    try:
        plugin = Plugin(from_environment())
    except UsageError as error:
        plugin = Plugin(from_environment({}), fault=error)
    _plugin = plugin
    _plugin.install()


def unregister() -> None:
    """Undo `register()`."""
    global _plugin  # noqa: PLW0603
    if _plugin is not None:
        _plugin.remove()
        _plugin = None
