"""The templates of the pages, in which whatever is put stays text."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from poolwise.sanitize import visible


def templates() -> Environment:
    """Markup is escaped, and what would be invisible or turn the direction of the text is shown."""
    return Environment(
        loader=PackageLoader("poolwise", "reports"), autoescape=True, undefined=StrictUndefined, finalize=_shown
    )


def _shown(value: Any) -> Any:
    return visible(value, keep="\n") if type(value) is str else value
