"""One card, measured: its two ceilings, then what Chorus makes of them. One command, one JSON file.

    python benchmarks/gpu/run.py                           everything, T5-XXL in bf16 on a card of 80 GB
    python benchmarks/gpu/run.py --minutes 20              longer than the usual 8
    python benchmarks/gpu/run.py --only ceilings decode    some of it
    python benchmarks/gpu/run.py --toy                     the same code at toy size, on any machine
    python benchmarks/gpu/run.py --peers-python PY         PEFT and Hugging Face from that environment

    ceilings   bytes a second of a copy, bf16 products a second: what the others are held against
    decode     a step of 64 slots against weights and keys and values of actual lengths at copy bandwidth;
               then a step of each block that `shapes = auto` chooses for the card
    prefill    64 x 256 positions, encoded and admitted, against the matmul rate; 2,000 resident prompts and 1
    base       T5 1.1 base, greedy, batch 128
    labels     requests a second through the engine in the shapes chosen for the card, beside PEFT and
               Hugging Face where torch is there

Each part runs in a process of its own, so that it has the card's whole memory. All of them together end
within `--minutes`: a part that is not done by then is stopped and said to be. The result is kept after each
part, and so are compiled programs: a second run gets further. `--command-buffers LIST` is XLA's list of
what goes into CUDA graphs; the result keeps it, so that two runs can be compared.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results"
PARTS = ("ceilings", "decode", "prefill", "base", "labels")
LEAST_SECONDS = 15.0
"""With less time left, a part is not begun."""

LABEL_GOALS = {"peft": 10.0, "hf_mixed": 3.0}
sys.path.insert(0, str(HERE.parent))


def main() -> None:
    options = _arguments()
    if options.part:
        _write_part(options)
        return
    found: dict[str, Any] = {}
    options.end = time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        for part in [each for each in PARTS if each in options.only]:
            # Toy parts share a process after the first: they need no memory, and starting costs more.
            run = _here if options.toy and part != "ceilings" else _child
            found[part] = run(part, options, scratch, found.get("ceilings", {}))
            _say(part, found[part])
            _save(options, found)
        if "labels" in found:
            found["labels"]["peers"] = peers = _peers(options, scratch)
            found["labels"]["ratios"] = _ratios(found["labels"], peers)
            _say("labels beside peers", {"peers": peers, "ratios": found["labels"]["ratios"]})
    _save(options, found)
    failed = [part for part, each in found.items() if "error" in each]
    if failed:
        sys.exit(f"FAILED: {', '.join(failed)}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--toy", action="store_true")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--layout", choices=("unrolled", "scanned"), default="unrolled")
    parser.add_argument("--attention", choices=("auto", "xla", "cudnn"), default="auto")
    parser.add_argument("--command-buffers", default="", help="value of --xla_gpu_enable_command_buffer")
    parser.add_argument("--peers-python", type=Path, default=Path(sys.executable))
    parser.add_argument("--peer-batch", type=int, default=64)
    parser.add_argument("--compile-cache", type=Path, default=HERE.parents[1] / ".chorus" / "gpu_cache")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--scratch", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _scale(options: argparse.Namespace) -> Any:
    from scale import full_scale, toy_scale

    return toy_scale() if options.toy else full_scale()


def _child(part: str, options: argparse.Namespace, scratch: Path, ceilings: dict[str, Any]) -> dict[str, Any]:
    (scratch / "ceilings.json").write_text(json.dumps(ceilings))
    environment = dict(os.environ)
    if options.command_buffers:
        flag = f"--xla_gpu_enable_command_buffer={options.command_buffers}"
        environment["XLA_FLAGS"] = f"{environment.get('XLA_FLAGS', '')} {flag}".strip()
    started = time.perf_counter()
    command = [sys.executable, __file__, *sys.argv[1:], "--part", part, "--scratch", scratch]
    done = _within(command, options, env=environment)
    if done is None:
        return {"error": f"no time was left of {options.minutes:g} minutes"}
    answer = scratch / f"{part}.json"
    if done.returncode or not answer.exists():
        return {"error": done.stderr[-2000:], "exit_code": done.returncode}
    found: dict[str, Any] = json.loads(answer.read_text())
    return found | {"process_seconds": round(time.perf_counter() - started, 1)}


def _within(
    command: list[Any], options: argparse.Namespace, **environment: Any
) -> subprocess.CompletedProcess[str] | None:
    """A command that ends when the time is up; None if it did not end by itself."""
    left = options.end - time.monotonic()
    if left < LEAST_SECONDS:
        return None
    try:
        return subprocess.run(
            list(map(str, command)), capture_output=True, text=True, timeout=left, **environment
        )
    except subprocess.TimeoutExpired:
        return None


def _here(part: str, options: argparse.Namespace, scratch: Path, ceilings: dict[str, Any]) -> dict[str, Any]:
    (scratch / "ceilings.json").write_text(json.dumps(ceilings))
    _write_part(argparse.Namespace(**vars(options) | {"part": part, "scratch": scratch}))
    found: dict[str, Any] = json.loads((scratch / f"{part}.json").read_text())
    return found


def _write_part(options: argparse.Namespace) -> None:
    from setting import device_facts, random_model

    from chorus_server.engine.executor import use_persistent_cache

    options.compile_cache.mkdir(parents=True, exist_ok=True)
    use_persistent_cache(str(options.compile_cache))
    scale, ceilings = _scale(options), json.loads((options.scratch / "ceilings.json").read_text())
    bandwidth = ceilings.get("copy_gigabytes_per_second", 1.0)
    teraflops = ceilings.get("matmul_teraflops", 1.0)

    def on(config: Any, run: Callable[[Any], Any]) -> dict[str, Any]:
        model, attention = random_model(config, options.layout, options.attention)
        return {"model": config.name, "layout": options.layout, "attention": attention, "found": run(model)}

    import base
    import ceilings as card
    import decoding
    import labels
    import prefill

    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "ceilings": lambda: card.measure(scale),
        "decode": lambda: on(scale.model, lambda model: decoding.measure(scale, model, bandwidth)),
        "prefill": lambda: on(scale.model, lambda model: prefill.measure(scale, model, teraflops)),
        "labels": lambda: on(
            scale.model, lambda model: labels.measure(scale, model, options.scratch / "work")
        ),
        "base": lambda: on(scale.base, lambda model: base.measure(scale, model)),
    }
    if options.part == "labels":
        labels.write_work(scale, options.scratch / "work")
    found = parts[options.part]() | {"device": device_facts()}
    (options.scratch / f"{options.part}.json").write_text(json.dumps(found))


def _peers(options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Each peer's figures, or why there are none."""
    python = str(options.peers_python)
    asks = "import torch, peft, transformers; print('cuda' if torch.cuda.is_available() else 'cpu')"
    have = subprocess.run([python, "-c", asks], capture_output=True, text=True)
    if have.returncode:
        return {
            "missing": f"torch, peft and transformers are not in {Path(python).name}: {have.stderr[-200:]}"
        }
    device = have.stdout.split()[-1]
    if device == "cpu" and not options.toy:
        return {"missing": "that torch has no CUDA"}
    scale, config = _scale(options), scratch / "peer_config.json"
    config.write_text(json.dumps(_hf_config(scale.model)))
    found: dict[str, Any] = {"device": device, "batch": options.peer_batch}
    for contender in LABEL_GOALS:
        command = [python, HERE / "peer_labels.py", scratch / "work", config, contender, device]
        command += [options.peer_batch, scale.repeats]
        done = _within(command, options)
        if done is None:
            found[contender] = {"missing": f"no time was left of {options.minutes:g} minutes"}
        elif done.returncode:
            found[contender] = {"error": done.stderr[-1000:]}
        else:
            found[contender] = json.loads(done.stdout.splitlines()[-1])
    return found


def _hf_config(config: Any) -> dict[str, Any]:
    return {
        "vocab_size": config.padded_vocab_size, "d_model": config.d_model, "d_kv": config.d_kv,
        "d_ff": config.d_ff, "num_layers": config.num_encoder_layers,
        "num_decoder_layers": config.num_decoder_layers, "num_heads": config.num_heads,
        "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "decoder_start_token_id": 0,
    }  # fmt: skip


def _ratios(ours: dict[str, Any], peers: dict[str, Any]) -> dict[str, Any]:
    rate = ours.get("found", {}).get("requests_per_second", 0.0)
    ratios = {}
    for contender, goal in LABEL_GOALS.items():
        theirs = peers.get(contender, {}).get("requests_per_second")
        if theirs:
            ratios[contender] = {"ratio": rate / theirs, "goal": goal, "reached": rate / theirs >= goal}
    return ratios


def _say(part: str, found: dict[str, Any]) -> None:
    print(part, json.dumps(found, indent=1), flush=True)


def _save(options: argparse.Namespace, found: dict[str, Any]) -> None:
    from machine import machine, versions

    where = machine()
    devices = [part["device"]["kind"] for part in found.values() if "device" in part]
    name = "-".join((devices or ["none"])[0].lower().split())
    record = {
        "what": "gpu", "date": datetime.now(UTC).date().isoformat(), "machine": where | {"card": name},
        "versions": versions(Path(sys.executable)), "toy": options.toy, "layout": options.layout,
        "minutes": options.minutes, "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "command_buffers": options.command_buffers,
        "parts": found,
    }  # fmt: skip
    toy = "-toy" if options.toy else ""
    target = options.out or RESULTS / f"{record['date']}-{name}-gpu{toy}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(record, indent=1) + "\n")
    print(f"kept in {target.name}", flush=True)


if __name__ == "__main__":
    main()
