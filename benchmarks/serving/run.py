"""Chorus by itself: tenancy for free, continuous batching, HTTP, uploads, ensembles, curves, tuning beside.

    python benchmarks/serving/run.py                    every part: about ten minutes on two quiet cores
    python benchmarks/serving/run.py --parts tuning     some parts; what is kept of the others stays
    python benchmarks/serving/run.py --prepare          only make what is kept: compiled programs, the store
    python benchmarks/serving/run.py --quick            a tiny model and few requests: does everything work

Each figure stands beside its goal. Parts: tasks, registry, text, busy, http, uploads, ensemble, curves,
tuning; each one's docstring says what it does. Contenders take turns in rounds, medians of ratios are told.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "peers"))
sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
from bench import Bench
from contenders import ROOT
from figures import Part, line
from machine import machine, versions
from part_registry import store_folder
from sizes import QUICK, REAL

PARTS = ("tasks", "registry", "text", "busy", "http", "uploads", "ensemble", "curves", "tuning")


def main() -> None:
    arguments = _arguments()
    sizes = QUICK if arguments.quick else REAL
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(sizes, Path(name), arguments.cache)
        try:
            if arguments.prepare:
                _prepare(bench)
            else:
                _run(bench, arguments)
        finally:
            bench.close()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--quick", action="store_true", help="a smoke check: its figures mean nothing")
    parser.add_argument("--prepare", action="store_true", help="measure nothing")
    parser.add_argument(
        "--cache", type=Path, default=ROOT / ".chorus" / "benchmark_cache", help="compile cache"
    )
    parser.add_argument(
        "--out", type=Path, help="result file (default: benchmarks/results/DATE-MACHINE-serving.json)"
    )
    return parser.parse_args()


def _prepare(bench: Bench) -> None:
    sys.stdout.write(f"server ready at {bench.served.url}\n")
    _ = bench.direct
    sys.stdout.write(f"store in {store_folder(bench)}\n")


def _run(bench: Bench, arguments: argparse.Namespace) -> None:
    target = _target(arguments)
    for name in arguments.parts:
        sys.stderr.write(f"{name}\n")
        if name in ("tasks", "registry", "text", "busy"):
            _ = bench.direct  # loading and compiling are no part's time
        else:
            _ = bench.served
        started = time.perf_counter()
        part = importlib.import_module(f"part_{name}").measure(bench)
        seconds = time.perf_counter() - started
        sys.stdout.write(f"\n{name} ({seconds:.0f} s)\n" + "".join(f"{line(f)}\n" for f in part.figures))
        sys.stdout.flush()
        _keep(target, name, part, seconds, arguments.quick)
    shown = target.relative_to(ROOT) if target.is_relative_to(ROOT) else target
    sys.stdout.write(f"\nkept in {shown}\n")


def _target(arguments: argparse.Namespace) -> Path:
    if arguments.out:
        return Path(arguments.out).resolve()
    if arguments.quick:
        return ROOT / ".chorus" / "serving-quick.json"
    name = f"{datetime.now(UTC).date().isoformat()}-{machine()['name']}-serving.json"
    return ROOT / "benchmarks" / "results" / name


def _keep(target: Path, name: str, part: Part, seconds: float, quick: bool) -> None:
    """Put one part beside those that are there already, with the commit that it was measured at."""
    where = machine()
    content: dict[str, Any] = {"what": "serving", "parts": {}}
    if target.exists():
        content = json.loads(target.read_text())
    content |= {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": where,
        "versions": versions(Path(sys.executable)),
        "quick": quick,
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    charts = {title: target.with_name(f"{target.stem}-{title}.svg") for title in part.charts}
    for title, path in charts.items():
        path.write_text(part.charts[title].svg())
    content["parts"][name] = {
        "commit": where["commit"],
        "seconds": round(seconds, 1),
        "figures": [figure.as_json() for figure in part.figures],
        "detail": part.detail,
        "charts": [path.name for path in charts.values()],
    }
    target.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
