"""Licences of everything that poolwise installs, read from the packages themselves.

python tools/licences.py            writes docs/licences.md
python tools/licences.py --check    says what differs, and ends with 1 where something does
"""

from __future__ import annotations

import re
import sys
from importlib import metadata
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "licences.md"
HEAD = """# Licenses

poolwise has the MIT license. This table lists its dependencies with the licenses in their metadata (`python tools/licences.py`
writes this page). Packages of an extra are installed only with that extra.

| package | for | license |
| --- | --- | --- |
"""


def requirements() -> dict[str, str]:
    """Distribution -> ``always``, or the extra that asks for it; those for tests are left out."""
    found = {}
    for line in metadata.requires("poolwise") or []:
        name = re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0]
        extra = re.search(r"extra == ['\"]([^'\"]+)", line)
        if name != "poolwise" and (extra is None or extra[1] != "test"):
            found[name.lower()] = f"`poolwise[{extra[1]}]`" if extra else "always"
    return found


def licence(name: str) -> str:
    """As the package says: its expression, its classifiers, or the first words of its licence field.

    A package that only another version of Python needs is not installed; the page is then believed. PackageNotFoundError where
    it does not list it either.
    """
    try:
        told = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        listed = re.search(rf"^\| {re.escape(name)} \| .* \| (.*) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
        if listed is None:
            raise
        return listed[1]
    classifiers = [c.split(" :: ")[-1] for c in told.get_all("Classifier") or [] if c.startswith("License ::")]
    text = told.get("License-Expression") or ", ".join(classifiers) or (told.get("License") or "").strip()
    return text.splitlines()[0][:120] if text else "not said"


def page() -> str:
    """The whole page. PackageNotFoundError where a package is not installed: pip install 'poolwise[test]'."""
    return HEAD + "".join(f"| {name} | {what} | {licence(name)} |\n" for name, what in sorted(requirements().items()))


def main() -> None:
    text = page()
    if "--check" not in sys.argv:
        PAGE.write_text(text, encoding="utf-8")
        return
    had = PAGE.read_text(encoding="utf-8").splitlines()
    differ = [line for line in text.splitlines() if line not in had] + [
        line for line in had if line not in text.splitlines()
    ]
    print("\n".join(differ) or "docs/licences.md says what is installed")
    sys.exit(bool(differ))


if __name__ == "__main__":
    main()
