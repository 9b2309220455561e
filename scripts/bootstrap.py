"""Makes the virtual environment in which the other scripts run. It needs only the standard library."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def environment(extra: str) -> Path:
    """Create or update `.venv` (or `$CHORUS_VENV`) with the checkout installed as `.[extra]`.

    Returns its Python. Does nothing if the dependencies have not changed since the last time.
    """
    if sys.version_info < (3, 11):  # noqa: UP036 - an older Python must be able to print this message
        sys.exit(f"Chorus needs Python 3.11 or newer; this is {sys.version.split()[0]}.")
    folder = Path(os.environ.get("CHORUS_VENV", ROOT / ".venv"))
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp = folder / f".chorus-{extra}"
    wanted = _digest(extra)
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        return python
    if not python.exists():
        _say(f"making a virtual environment in {_short(folder)}")
        try:
            venv.create(folder, with_pip=True)
        except (subprocess.CalledProcessError, ImportError):
            sys.exit(
                "Python's venv module is incomplete here: install it (Debian: apt install python3-venv)."
            )
    _say("installing Chorus and its dependencies (about 700 MB, once)")
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, "-c", str(ROOT / "constraints.txt"), "-e", f"{ROOT}[{extra}]"], check=True)
    stamp.write_text(wanted)
    return python


def _digest(extra: str) -> str:
    content = b"".join((ROOT / name).read_bytes() for name in ("pyproject.toml", "constraints.txt"))
    return hashlib.sha256(extra.encode() + str(ROOT).encode() + content).hexdigest()


def _short(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def _say(text: str) -> None:
    sys.stderr.write(f"chorus: {text}\n")
    sys.stderr.flush()
