"""Reference numbers of a real T5 on real sentences: Hugging Face T5 in torch, f32, real untied head.

    python benchmarks/parity/reference.py --model FOLDER --data FOLDER --out FOLDER     # torch, transformers
    4.57.1 python benchmarks/parity/compare.py   --model FOLDER --reference FOLDER --machine 2core-cpu

`--data` holds glue/SST-2/dev.tsv, glue/RTE/dev.tsv and classification/ag_news/test.csv. About 2 GB are
written to `--out`.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

PROMPT_LENGTHS = (0, 1, 20, 100, 150)
NEW_TOKENS = 16
LOGIT_POSITIONS = 6
ENCODED = 25
BEAM_PROMPTS = (0, 20)
BEAM_SENTENCES = 24
BATCH = 25


def sentences(data: Path, count: int) -> list[str]:
    """Sentiment, entailment and news in turn, so that lengths mix."""
    with (data / "glue/SST-2/dev.tsv").open(encoding="utf-8") as file:
        sentiment = [row["sentence"] for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]
    with (data / "glue/RTE/dev.tsv").open(encoding="utf-8") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        entailment = [f"premise: {row['sentence1']} hypothesis: {row['sentence2']}" for row in rows]
    with (data / "classification/ag_news/test.csv").open(encoding="utf-8") as file:
        news = [f"{row[1]}. {row[2]}" for row in csv.reader(file)]
    mixed = [text for texts in zip(sentiment, entailment, news, strict=False) for text in texts]
    return mixed[:count]


def batches(lengths: list[int], size: int) -> list[list[int]]:
    """Indices in batches of similar length."""
    order = sorted(range(len(lengths)), key=lambda index: lengths[index])
    return [order[start : start + size] for start in range(0, len(order), size)]


def padded(model: Any, prompt: torch.Tensor, ids: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Input embeddings [B, P + L, D], the prompt before the text with no hole, and the mask."""
    table = model.get_input_embeddings()
    rows = [torch.cat([prompt, table(torch.tensor(row))]) for row in ids]
    mask = torch.zeros(len(rows), max(len(row) for row in rows), dtype=torch.long)
    for index, row in enumerate(rows):
        mask[index, : len(row)] = 1
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), mask


def run_greedy(model: Any, prompt: torch.Tensor, ids: list[list[int]], out: Path) -> list[list[int]]:
    """Greedy tokens of every sentence; logits along them go to a file, [n, LOGIT_POSITIONS, V]."""
    shape = (len(ids), LOGIT_POSITIONS, model.config.vocab_size)
    name = f"{len(prompt)}.npy"
    logits = np.lib.format.open_memmap(out / f"logits_{name}", mode="w+", dtype=np.float32, shape=shape)
    tokens: list[list[int]] = [[] for _ in ids]
    for batch in batches([len(row) for row in ids], BATCH):
        inputs, mask = padded(model, prompt, [ids[index] for index in batch])
        found = model.generate(
            inputs_embeds=inputs, attention_mask=mask, do_sample=False, num_beams=1, max_new_tokens=NEW_TOKENS
        )
        found = torch.nn.functional.pad(found, (0, max(0, LOGIT_POSITIONS + 1 - found.shape[1])))
        forced = model(
            inputs_embeds=inputs, attention_mask=mask, decoder_input_ids=found[:, :LOGIT_POSITIONS]
        )
        for place, index in enumerate(batch):
            logits[index] = forced.logits[place].numpy()
            row = found[place, 1:].tolist()
            tokens[index] = row[: row.index(1) + 1] if 1 in row else row[:NEW_TOKENS]
            if index < ENCODED:
                real = forced.encoder_last_hidden_state[place, : int(mask[place].sum())]
                np.save(out / f"encoded_{index}_{name}", real.numpy())
    logits.flush()
    return tokens


def run_beams(model: Any, prompt: torch.Tensor, ids: list[list[int]]) -> list[dict[str, Any]]:
    results = []
    for row in ids:
        inputs, mask = padded(model, prompt, [row])
        found = model.generate(
            inputs_embeds=inputs, attention_mask=mask, do_sample=False, num_beams=4, num_return_sequences=4,
            length_penalty=0.0, early_stopping=False, max_new_tokens=NEW_TOKENS, output_scores=True,
            return_dict_in_generate=True,
        )  # fmt: skip
        sequences = [
            line[: line.index(1) + 1] if 1 in line else line for line in found.sequences[:, 1:].tolist()
        ]
        results.append({"sequences": sequences, "scores": found.sequences_scores.tolist()})
    return results


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sentences", type=int, default=500)
    parser.add_argument("--prompt-length", type=int, action="append", help="only these (several processes)")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    transformers.logging.set_verbosity_error()
    torch.set_grad_enabled(False)
    model = transformers.T5ForConditionalGeneration.from_pretrained(options.model, dtype=torch.float32).eval()
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    if embedding.data_ptr() == head.data_ptr():
        raise SystemExit("the reference tied its head to the embedding: it would compare another model")
    tokenizer = transformers.T5Tokenizer(str(options.model / "spiece.model"), legacy=True)
    texts = sentences(options.data, options.sentences)
    ids = [tokenizer(text).input_ids for text in texts]
    prompt = torch.randn(
        max(PROMPT_LENGTHS), model.config.d_model, generator=torch.Generator().manual_seed(7)
    )
    prompt = prompt * embedding.std()
    np.save(options.out / "prompt.npy", prompt.numpy())
    record: dict[str, Any] = {
        "reference": {"transformers": transformers.__version__, "torch": torch.__version__},
        "prompt_lengths": PROMPT_LENGTHS, "beam_prompts": BEAM_PROMPTS, "new_tokens": NEW_TOKENS,
        "encoded": ENCODED, "texts": texts, "ids": ids,
    }  # fmt: skip
    (options.out / "reference.json").write_text(json.dumps(record))
    for length in options.prompt_length or PROMPT_LENGTHS:
        greedy = run_greedy(model, prompt[:length], ids, options.out)
        (options.out / f"greedy_{length}.json").write_text(json.dumps(greedy))
        if length in BEAM_PROMPTS:
            beams = run_beams(model, prompt[:length], ids[:BEAM_SENTENCES])
            (options.out / f"beams_{length}.json").write_text(json.dumps(beams))
        print(f"prompt length {length}: done", flush=True)


if __name__ == "__main__":
    main()
