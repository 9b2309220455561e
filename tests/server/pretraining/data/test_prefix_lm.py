"""The LM objective: even cuts, two chunks a row, nothing lost and no padding."""

from __future__ import annotations

import numpy as np

from chorus_server.pretraining.data.prefix_lm import chunk_length, pair_rows


def test_rows_are_full_and_hold_both_chunks() -> None:
    N = chunk_length(22)
    chunks = np.arange(3, 3 + 40 * N).reshape(40, N).astype(np.uint16)
    rows = pair_rows(chunks, 1, "train", 0, 0)
    assert rows.inputs.shape == rows.targets.shape == (20, 22)
    assert rows.input_segments is not None and rows.target_segments is not None
    assert rows.tokens == 2 * 20 * 22
    for row in range(20):
        for segment in (1, 2):
            prefix = rows.inputs[row][rows.input_segments[row] == segment]
            rest = rows.targets[row][rows.target_segments[row] == segment]
            assert prefix[-1] == rest[-1] == 1 and len(prefix) > 1 and len(rest) > 1
            together = np.concatenate([prefix[:-1], rest[:-1]])
            assert (together == chunks[2 * row + segment - 1]).all()


def test_every_cut_is_as_likely_on_both_sides() -> None:
    N = 6
    rows = pair_rows(np.full((2 * 5000, N), 9, np.uint16), 1, "train", 1, 0)
    assert rows.input_segments is not None
    for segment in (1, 2):
        cuts = (rows.input_segments == segment).sum(axis=1) - 1
        counts = np.bincount(cuts, minlength=N)[1:]
        assert counts.sum() == 5000 and (abs(counts - 1000) < 5 * np.sqrt(5000 * 4 / 25)).all()
