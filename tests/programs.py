"""Programs of Debian's that some tests need: a browser, an SSH server, Postgres."""

import os
import shutil
from pathlib import Path

import pytest


def needed(*names: str, package: str) -> str:
    """Where the first of the programs is that is installed; skips without any, and fails where CI must have it."""
    newest = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: float(p.parent.name), reverse=True)
    path = os.pathsep.join([os.environ["PATH"], "/usr/sbin", *map(str, newest)])
    found = next((f for name in names if (f := shutil.which(name, path=path))), None)
    if found is None:
        if os.environ.get("CI"):
            pytest.fail(f"{names[0]} is missing: apt install {package}")
        pytest.skip(f"{names[0]} is not installed (Debian: apt install {package})")
    return found


def needed_browser() -> str:
    """A Chromium, for pages that only a browser can draw."""
    return needed("chromium", "chromium-browser", "google-chrome", package="chromium")
