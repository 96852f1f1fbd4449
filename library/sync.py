"""The manager for synchronous code: the methods of ``herdbook.core``, without asyncio.

    from herdbook.sync import ModelManager

    with ModelManager.open("herd.db") as manager:
        for progress in manager.pull("llama3.2:3b"):
            print(progress.percent)

The methods are made from those of the asynchronous class, with the same arguments,
results and errors. Asynchronous iterators become generators. The types are in
``sync.pyi``, which ``make docs`` writes.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from herdbook.core import ReadModel
from herdbook.core.errors import CallerError
from herdbook.core.manager import ModelManager as AsyncModelManager
from herdbook.loop_thread import LoopThread

__all__ = ["ModelManager"]


class ModelManager:
    """The models of one Ollama server and their log, for synchronous code.

    Open it with ``with ModelManager.open(...) as manager``. It has a thread with an
    event loop, and may be used from several threads.
    """

    def __init__(self, *_: object, **__: object) -> None:
        """Refuse: a manager needs an open log and a connection.

        Raises:
            CallerError: Always.
        """
        raise CallerError(
            "ModelManager",
            "cannot be created directly",
            'Use: with ModelManager.open("herd.db") as manager',
        )

    @classmethod
    @contextmanager
    @wraps(AsyncModelManager.open)
    def open(cls, *args: Any, **kwargs: Any) -> Iterator[ModelManager]:
        """Open a log and connect to its server; recover from a crash."""
        thread = LoopThread()
        try:
            held = thread.hold(AsyncModelManager.open(*args, **kwargs))
            manager = cls.__new__(cls)
            manager._thread, manager._manager = thread, held.opened  # noqa: SLF001
            try:
                yield manager
            finally:
                held.close()
        finally:
            thread.close()

    @property
    def registry(self) -> object:
        """Known models, with what to expect of them before they are present."""
        return self._manager.registry

    _thread: LoopThread
    _manager: AsyncModelManager


def _blocking(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method that waits for an asynchronous one."""

    @wraps(method)
    def blocking(self: ModelManager, *args: Any, **kwargs: Any) -> Any:
        async def work() -> Any:
            result = getattr(self._manager, name)(*args, **kwargs)
            if inspect.isawaitable(result):
                result = await result
            # A read model of now changes with the log, in the thread of the loop.
            return result.fixed() if isinstance(result, ReadModel) else result

        return self._thread.run(work())

    return blocking


def _blocking_property(name: str, original: property) -> Callable[..., Any]:
    """Return a getter that reads a property in the thread of the loop."""

    def getter(self: ModelManager) -> Any:
        return self._thread.call(lambda: getattr(self._manager, name))

    getter.__doc__ = original.__doc__
    return getter


def _iterating(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a generator method that iterates over an asynchronous one."""

    @wraps(method)
    def iterating(self: ModelManager, *args: Any, **kwargs: Any) -> Any:
        source: AsyncGenerator[Any, None]
        source = getattr(self._manager, name)(*args, **kwargs)
        return self._thread.iterate(source)

    return iterating


def _direct(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method that runs in the thread of the caller."""

    @wraps(method)
    def direct(self: ModelManager, *args: Any, **kwargs: Any) -> Any:
        return getattr(self._manager, name)(*args, **kwargs)

    return direct


def is_iterator(method: Callable[..., Any]) -> bool:
    """Return whether a method of the asynchronous manager returns an iterator."""
    return str(inspect.signature(method).return_annotation).startswith("AsyncGenerator")


def public_methods() -> dict[str, Callable[..., Any]]:
    """Return the methods of the asynchronous manager by name, without ``open``."""
    return {
        name: method
        for name, method in inspect.getmembers(AsyncModelManager, inspect.isfunction)
        if not name.startswith("_")
    }


def public_properties() -> dict[str, property]:
    """Return the properties of the asynchronous manager by name."""
    found = inspect.getmembers(AsyncModelManager, lambda one: isinstance(one, property))
    return {name: each for name, each in found if not name.startswith("_")}


for _name, _property in public_properties().items():
    setattr(ModelManager, _name, property(_blocking_property(_name, _property)))
for _name, _method in public_methods().items():
    if _name == "acting_as":  # sets context variables of the calling thread
        _made = _direct(_name, _method)
    elif is_iterator(_method):
        _made = _iterating(_name, _method)
    else:
        _made = _blocking(_name, _method)
    setattr(ModelManager, _name, _made)
