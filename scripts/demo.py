"""Sets everything up, starts a server and sends it one batch of different tasks.

python3 scripts/demo.py            set up, answer, serve until Ctrl-C (without a terminal: stop)
python3 scripts/demo.py --once     set up, answer, stop
"""

from __future__ import annotations

import os
import subprocess
import sys

from bootstrap import ROOT, environment
from tether import tethered

if __name__ == "__main__":
    python = environment("server")
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    try:
        code = subprocess.run(
            tethered([python, ROOT / "scripts" / "mixed_batch.py", *sys.argv[1:]]), cwd=ROOT
        ).returncode
    except KeyboardInterrupt:
        code = 0
    sys.exit(code)
