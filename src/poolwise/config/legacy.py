"""The flat ``Settings`` of earlier versions, for one release."""

from __future__ import annotations

from typing import Any

from poolwise.config.request import Config


class Settings:
    """Make a ``Config`` from settings by name, as ``poolwise.Settings(steps=100)`` did."""

    def __new__(cls, **values: Any) -> Config:  # type: ignore[misc]
        return Config.from_flat(values)

    @staticmethod
    def from_json(values: dict[str, Any]) -> Config:
        """Return ``Config.from_flat(values)``."""
        return Config.from_flat(values)
