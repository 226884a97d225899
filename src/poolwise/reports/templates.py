"""Page templates, which insert all values as plain text."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from poolwise.sanitize import visible


def templates() -> Environment:
    """Return the template environment. It escapes markup, and makes invisible and bidirectional characters visible."""
    return Environment(
        loader=PackageLoader("poolwise", "reports"), autoescape=True, undefined=StrictUndefined, finalize=_shown
    )


def _shown(value: Any) -> Any:
    return visible(value, keep="\n") if type(value) is str else value
