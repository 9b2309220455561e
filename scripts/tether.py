"""Ties a process to the one that starts it: it ends when that one ends in any way, even by `kill -9`.

    subprocess.Popen(tethered(["chorus", "serve"]))

The kernel does this with SIGKILL, so even a process that hangs ends. Only Linux can do it; elsewhere the
command runs untied. Note that what counts is the *thread* that starts the process, so start it from one that
stays, such as the main thread. And a process's own children are not tied, so each level must tie its own.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1


def tethered(command: Sequence[object], user: str = "") -> list[str]:
    """The command for `subprocess` that runs `command` tied to this process.

    Args:
        user: an account to run it as. This process must then be root.
    """
    plain = [str(part) for part in command]
    if not sys.platform.startswith("linux"):
        return plain
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), user, *plain]


def tie_to(parent: int) -> None:
    """Tie this process, a forked child of process `parent`."""
    if not sys.platform.startswith("linux"):
        return
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    if os.getppid() != parent:  # the parent ended before we were tied to it
        os._exit(1)


def _become(user: str) -> None:
    import pwd

    account = pwd.getpwnam(user)
    os.setgroups([])
    os.setgid(account.pw_gid)
    os.setuid(account.pw_uid)


if __name__ == "__main__":
    _, tied_to, account_name, *words = sys.argv
    if account_name:
        _become(account_name)  # first, because a change of user unties
    tie_to(int(tied_to))
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and the command would inherit that
    os.execvp(words[0], words)
