"""Registry of entries that are looked up by name: model families, samplers, strategies.

To add an entry, add a module that uses ``@register(...)`` to the package of the registry.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from typing import Generic, TypeVar

from poolwise.errors import RequestError, did_you_mean

Entry = TypeVar("Entry")
Decorated = TypeVar("Decorated")


class Registry(Generic[Entry]):
    """Entries by name. All modules of ``package`` are imported before the first lookup to register their entries.

    Args:
        noun: Name of an entry in messages, for example ``model``.
        package: Dotted name of the package whose modules register entries.
        hint: Text appended to the message about an unknown name.
        plural: Plural of the noun, if it is not the noun with an s.
    """

    def __init__(self, noun: str, package: str, hint: str = "", *, plural: str | None = None) -> None:
        self.noun, self.package, self.hint, self.plural = noun, package, hint, plural or f"{noun}s"
        self._entries: dict[str, Entry] = {}
        self._discovered = False

    def register(self, name: str) -> Callable[[Decorated], Decorated]:
        """Return a decorator that adds the decorated object under ``name`` and returns it unchanged."""

        def decorate(entry: Decorated) -> Decorated:
            self.add(name, entry)  # type: ignore[arg-type]
            return entry

        return decorate

    def add(self, name: str, entry: Entry) -> None:
        """Add an entry. Names must be unique."""
        assert name not in self._entries, f"two entries of {self.package} are called {name}"
        self._entries[name] = entry

    def all(self) -> dict[str, Entry]:
        """Return every entry by name, in alphabetical order."""
        self._discover()
        return dict(sorted(self._entries.items()))

    def get(self, name: str) -> Entry:
        """Return the entry called ``name``.

        Raises:
            RequestError: The name is unknown. The message lists the known names and suggests the closest.
        """
        self._discover()
        if name not in self._entries:
            known = self.all()
            raise RequestError(
                f"unknown {self.noun} {name!r}{did_you_mean(name, known, '.')} Known {self.plural}: {', '.join(known)}{self.hint}"
            )
        return self._entries[name]

    def _discover(self) -> None:
        if self._discovered:
            return
        package = importlib.import_module(self.package)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{self.package}.{module.name}")
        self._discovered = True
