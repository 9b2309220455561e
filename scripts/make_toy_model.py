"""Makes a small T5 with random weights, a vocabulary and three prompt files, for trying things out.

    python scripts/make_toy_model.py FOLDER      -> FOLDER/model, FOLDER/prompts/*.safetensors

The weights are random (seed 0), so the answers mean nothing; everything else is real. Serve a real checkpoint
with `chorus serve --model FOLDER_OR_HUB_ID`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import sentencepiece

from prompts_store.artifacts import write_artifact
from prompts_store.digests import prompt_digest
from prompts_store.records import PromptManifest

ROOT = Path(__file__).resolve().parent.parent
PROMPT_LENGTH = 20
TASKS = {
    "sentiment": ["negative", "positive"],
    "topic": ["world", "sports", "business", "science"],
    "question": ["person", "place", "number", "description"],
}
SENTENCES = (
    "the film is a warm and funny story about a family by the sea",
    "a slow and joyless mess that forgets to tell its story",
    "shares of the bank rose after it reported a quarterly profit",
    "the team won the final after a late goal in extra time",
    "who wrote the first book about the history of the city ?",
    "how many people live in the largest country of the world ?",
)


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        vocabulary = train_vocabulary(_lines(), Path(scratch))
        chorus = Path(sys.executable).parent / "chorus"
        command = [chorus, "models", "init", "--size", "tiny", "--vocabulary", vocabulary]
        subprocess.run([*command, folder / "model"], check=True, stdout=subprocess.DEVNULL)
    width = json.loads((folder / "model" / "config.json").read_text())["d_model"]
    (folder / "prompts").mkdir(exist_ok=True)
    for seed, (task, labels) in enumerate(TASKS.items()):
        values = np.random.default_rng(seed).uniform(-0.5, 0.5, (PROMPT_LENGTH, width)).astype(np.float32)
        manifest = PromptManifest(
            prompt_digest(values), PROMPT_LENGTH, width, labels=tuple(labels), settings={"max_new_tokens": 4}
        )
        (folder / "prompts" / f"{task}.safetensors").write_bytes(
            write_artifact(values, "safetensors", manifest=manifest)
        )


def train_vocabulary(lines: Iterable[str], folder: Path) -> Path:
    """Write `folder/spiece.model`, made from these lines: SentencePiece with T5's control ids and 600 pieces,
    or as many as the text gives."""
    text = folder / "text.txt"
    text.write_text("\n".join(line.strip() for line in lines if line.strip()))
    sentencepiece.SentencePieceTrainer.train(
        input=str(text),
        model_prefix=str(folder / "spiece"),
        vocab_size=600,
        byte_fallback=True,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    return folder / "spiece.model"


def _lines() -> Iterator[str]:
    """The text from which the vocabulary is made."""
    yield from SENTENCES
    for labels in TASKS.values():
        yield from labels
    yield from (ROOT / "LICENSE").read_text().lower().splitlines()


if __name__ == "__main__":
    main()
