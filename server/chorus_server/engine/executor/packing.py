"""From step plans to host arrays. Every dispatch gets new arrays, because a running step may still read the
last ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chorus_server.engine.executor.prefill import Admitted
from chorus_server.engine.executor.state import MAX_BEAMS, initial_slots, no_logit_bias
from chorus_server.engine.plans import (
    TREES_TOGETHER,
    Admission,
    BlockShape,
    Ladder,
    RowLoad,
    ScorePlan,
)
from chorus_server.engine.protocols import HostPrompts
from chorus_server.engine.sampling import DEVICE_DTYPES, device_values
from chorus_server.engine.target_trees import EDGES_PER_NODE, FEW_TREES, TargetTree, target_trees
from chorus_server.errors import InternalError
from chorus_server.model.trees import Trees


def pack_inputs(
    inputs: Sequence[Sequence[int]], bucket: tuple[int, int], tokens: int, most: int
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Ids `[T]` of rows end to end, and the rows' starts and lengths, `[most]` i32: T and 0 if not used."""
    B, L = bucket
    sizes = [len(row) for row in inputs]
    if len(inputs) > B or any(not 0 < size <= L for size in sizes) or sum(sizes) > tokens:
        raise InternalError(f"a plan puts inputs of lengths {sizes} in [{B}, {L}] of {tokens} tokens")
    ids, starts, lengths = np.zeros((tokens,), np.int32), np.full((most,), tokens, np.int32), _zeros(most)
    for place, (start, row) in enumerate(zip(np.cumsum([0, *sizes]), inputs, strict=False)):
        ids[start : start + len(row)] = row
        starts[place], lengths[place] = start, len(row)
    return ids, starts, lengths


def _zeros(count: int) -> NDArray[Any]:
    return np.zeros((count,), np.int32)


RowTrees = list[tuple[int, TargetTree]]
"""Trees, each with its row of the batch."""


def score_dispatches(plan: ScorePlan, ladder: Ladder) -> Iterator[tuple[tuple[int, int], list[RowTrees]]]:
    """The score bucket of each dispatch of a plan, and the trees in it: those of one input by size, where the
    bucket has room for several of it, else one group of any inputs.

    What stands together follows from a request's own targets, wherever it has a program for itself.
    """
    B, sizes = plan.bucket[0], ladder.tree_sizes
    several = ladder.trees_of_one((ladder.score_rows(sizes[-1], B), sizes[-1])) if sizes else ()
    others: dict[int, RowTrees] = {}
    for row, targets in enumerate(plan.targets):
        trees: RowTrees = [(row, tree) for tree in (target_trees(targets, sizes) if targets else ())]
        largest = [each for each in trees if several and each[1].nodes == sizes[-1]]
        rest = [each for each in trees if not several or each[1].nodes < sizes[-1]]
        for first in range(0, len(largest), TREES_TOGETHER):
            some = largest[first : first + TREES_TOGETHER]
            groups = [some, *([] for _ in several[1:])]
            for group, (room, size) in zip(groups[1:], several[1:], strict=True):
                fitting = [each for each in rest if each[1].nodes == size]
                group += fitting[:room] if len(some) > FEW_TREES else []
            rest = [each for each in rest if not any(each in group for group in groups)]
            yield (1, sizes[-1]), groups
        for each in rest:
            others.setdefault(each[1].nodes, []).append(each)
    for J, group in sorted(others.items()):
        R = ladder.score_rows(J, B)
        for first in range(0, len(group), R):
            yield (R, J), [group[first : first + R]]


def pack_trees(
    part: Sequence[tuple[int, TargetTree]], shape: tuple[int, int], start_id: int, most: int
) -> tuple[NDArray[Any], Trees]:
    """(row of the batch, tree) of one dispatch as `prefill.score` takes them: rows `[R]` i32, `most` where
    there is none, and the trees."""
    R, J = shape
    chosen, places = np.full((R,), most, np.int32), np.arange(1, J + 1, dtype=np.int32)
    tokens, depths, ends = np.zeros((R, J), np.int32), np.zeros((R, J), np.int32), np.tile(places, (R, 1))
    sources, pieces = (np.zeros((R, EDGES_PER_NODE * J), np.int32) for _ in range(2))
    for place, (row, tree) in enumerate(part):
        count, edges = len(tree.tokens), len(tree.pieces)
        chosen[place] = row
        tokens[place, :count], tokens[place, 0] = tree.tokens, start_id
        depths[place, :count], ends[place, :count] = tree.depths, tree.ends
        sources[place, :edges], pieces[place, :edges] = tree.sources, tree.pieces
    arrays: Any = (tokens, depths, ends, sources, pieces)
    return chosen, Trees(*arrays)


def pack_loads(
    loads: Iterable[RowLoad], prompts: HostPrompts, table: tuple[int, int], per_load: int, dtype: Any
) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Row numbers `[n]` i32 and values `[n, D]` for each scatter. Unused places have the row number R and are
    dropped."""
    R, D = table
    rows: list[int] = []
    parts: list[NDArray[Any]] = []
    for load in loads:
        values = prompts.values(load.digest)
        if values.shape != (len(load.rows), D):
            raise InternalError(f"a plan loads {len(load.rows)} rows of a prompt of shape {values.shape}")
        rows.extend(load.rows)
        parts.append(values)
    stacked = np.concatenate(parts).astype(dtype, copy=False) if parts else np.zeros((0, D), dtype)
    for start in range(0, len(rows), per_load):
        count = min(per_load, len(rows) - start)
        numbers, block = np.full((per_load,), R, np.int32), np.zeros((per_load, D), dtype)
        numbers[:count] = rows[start : start + count]
        block[:count] = stacked[start : start + count]
        yield numbers, block


def rounds(admissions: Iterable[Admission]) -> Iterator[tuple[int, list[Admission]]]:
    """(block, admissions) for each dispatch. One dispatch puts a batch row into at most one group of a
    block."""
    left = list(admissions)
    while left:
        block, taken, later = left[0].block, {}, []
        for admission in left:
            if admission.block == block and admission.row not in taken:
                taken[admission.row] = admission
            else:
                later.append(admission)
        yield block, list(taken.values())
        left = later


def pack_admissions(
    admissions: Sequence[Admission], batch: int, shape: BlockShape, start_id: int
) -> Admitted:
    """The arguments with which `prefill.admit` puts these groups into a block."""
    S = shape.slots
    rows, targets = _zeros(batch), np.full((batch,), S, np.int32)
    fresh, sources = np.zeros((S,), np.bool_), np.zeros((S,), np.int32)
    members = np.repeat(np.arange(S, dtype=np.int32)[:, None], MAX_BEAMS, axis=1)
    for place, admission in enumerate(admissions):
        _check(admission, shape)
        group = admission.slots
        rows[place], targets[place] = admission.row, group[0]
        if admission.sampling.num_beams > 1:
            members[group[0], : len(group)] = group
    slots = np.array([slot for each in admissions for slot in each.slots])
    state: Any = initial_slots(S, _settings(admissions, slots, S))
    fresh[slots] = True
    sources[slots] = [each.row for each in admissions for _ in each.slots]
    state.active[slots] = True
    state.tokens[slots] = start_id
    state.leader[slots] = [each.slots[0] for each in admissions for _ in each.slots]
    state.place[slots] = [place for each in admissions for place in range(len(each.slots))]
    arrays: dict[str, Any] = {
        "count": np.int32(len(admissions)),
        "rows": rows,
        "targets": targets,
        "fresh": fresh,
        "sources": sources,
        "members": members,
    }
    return Admitted(slots=state, **arrays)


def _settings(admissions: Sequence[Admission], slots: NDArray[Any], S: int) -> dict[str, NDArray[Any]]:
    """`SettingArrays` with the groups' settings in their slots. A double can hold every value exactly."""
    table = np.zeros((S, len(DEVICE_DTYPES)))
    table[slots] = [device_values(each.sampling) for each in admissions for _ in each.slots]
    columns = zip(DEVICE_DTYPES.items(), table.T, strict=True)
    settings = {name: column.astype(dtype) for (name, dtype), column in columns} | no_logit_bias(S)
    for each in admissions:
        for place, (id, bias) in enumerate(each.sampling.logit_bias):
            settings["logit_bias_ids"][list(each.slots), place] = id
            settings["logit_bias_values"][list(each.slots), place] = bias
    return settings


def _check(admission: Admission, shape: BlockShape) -> None:
    slots, settings = admission.slots, admission.sampling
    if not slots or any(not 0 <= slot < shape.slots for slot in slots) or len(set(slots)) != len(slots):
        raise InternalError(f"a plan admits to slots {slots} of a block of {shape.slots}")
    if settings.num_beams > 1 and settings.num_beams != len(slots):
        raise InternalError(f"a plan gives {len(slots)} slots to a search of {settings.num_beams} beams")
    if settings.num_beams > MAX_BEAMS:
        raise InternalError(f"a plan asks for {settings.num_beams} beams; the executor has {MAX_BEAMS}")
    if not 1 <= settings.max_new_tokens <= shape.new_tokens:
        raise InternalError(
            f"a plan asks for {settings.max_new_tokens} tokens of a block of {shape.new_tokens}"
        )
