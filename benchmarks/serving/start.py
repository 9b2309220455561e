"""How long `chorus serve` takes until it is ready: cold (nothing compiled) and warm (a second start).

python benchmarks/serving/start.py --model embedded --result FILE
python benchmarks/serving/start.py --code before=/path/to/older/checkout --code now=. --rounds 2 --result FILE

With several `--code`, their starts alternate, and each is compared with the first. A checkout is run by the
Python that runs this file, with its folders in front of the path and its bytecode written beforehand, as pip
does for what it installs. It measures what a user sees: from the start of the process to the first `ready` of
`/readyz`, asked every 20 ms. CPU seconds are the process's, until it has stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from machine import machine, versions

_LIMIT_SECONDS = 400
_SERVE = "import sys; from chorus.cli import main; sys.argv[0] = 'chorus'; main()"


_PARTS = ("clients", "clients/console", "server", "prompts_store")


def write_bytecode(code: Path) -> None:
    """Compile a checkout's modules, which a start would else do each time if it may not write there."""
    folders = [str(code / part) for part in _PARTS]
    subprocess.run([sys.executable, "-m", "compileall", "-q", *folders], check=True)


def start(code: Path, model: str, data: Path) -> dict[str, Any]:
    """One start of a server, which is stopped once it is ready."""
    path = os.pathsep.join(str(code / part) for part in (*_PARTS[:-1], "."))
    environment = {**os.environ, "PYTHONPATH": path, "CHORUS_DATA_DIR": str(data), "JAX_PLATFORMS": "cpu"}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    log = data / "start.log"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    with log.open("w") as out:
        server = subprocess.Popen(
            [sys.executable, "-c", _SERVE, "serve", "--model", model, "--host", "127.0.0.1", "--port", "0"],
            env=environment, stdout=out, stderr=out, cwd=data,
        )  # fmt: skip
    try:
        while not _ready(log):
            if server.poll() is not None or time.perf_counter() - started > _LIMIT_SECONDS:
                raise SystemExit(f"the server is not ready:\n{log.read_text()[-2000:]}")
            time.sleep(0.02)
        seconds = time.perf_counter() - started
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = re.search(r"compiled (\d+) programs in ([\d.]+) s(?:, (\d+) of them)?", log.read_text())
    assert found is not None
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return {
        "ready_seconds": round(seconds, 2),
        "programs_seconds": float(found[2]),
        "cpu_seconds": round(cpu, 2),
        "programs": int(found[1]),
        "from_cache": int(found[3] or 0),
    }


def _ready(log: Path) -> bool:
    url = re.search(r"listening on (http://\S+)", log.read_text())
    if url is None:
        return False
    try:
        with urllib.request.urlopen(f"{url[1]}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--code", action="append", metavar="NAME=CHECKOUT")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--warm", type=int, default=2, help="warm starts after each cold one")
    parser.add_argument("--result", type=Path)
    options = parser.parse_args()
    codes = dict(each.split("=", 1) for each in options.code or [f"now={Path(__file__).parents[2]}"])
    for code in codes.values():
        write_bytecode(Path(code).resolve())
    starts: dict[str, dict[str, list[Any]]] = {name: {"cold": [], "warm": []} for name in codes}
    folder = Path(tempfile.mkdtemp(prefix="chorus-start-"))
    try:
        for each in range(options.rounds):
            for kind, times in (("cold", 1), ("warm", options.warm)):
                for _ in range(times):
                    for name, code in codes.items():
                        data = folder / f"{name}-{each}"
                        data.mkdir(exist_ok=True)
                        took = start(Path(code).resolve(), options.model, data)
                        starts[name][kind].append(took)
                        print(name, kind, json.dumps(took), flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    result = {
        "machine": machine(),
        "versions": versions(Path(sys.executable)),
        "model": Path(options.model).name,
        "starts": starts,
        "ratios": _ratios(starts),
    }
    print(json.dumps(result["ratios"], indent=1))
    if options.result:
        options.result.write_text(json.dumps(result, indent=1) + "\n")


def _ratios(starts: dict[str, dict[str, list[Any]]]) -> dict[str, Any]:
    """Medians of each code over those of the first."""
    first = next(iter(starts))
    fields = ("ready_seconds", "programs_seconds", "cpu_seconds")

    def middle(name: str, kind: str, field: str) -> float:
        return float(median(each[field] for each in starts[name][kind]))

    return {
        name: {
            kind: {each: round(middle(name, kind, each) / middle(first, kind, each), 3) for each in fields}
            for kind in ("cold", "warm") if starts[name][kind]
        }
        for name in starts if name != first
    }  # fmt: skip


if __name__ == "__main__":
    main()
