"""From step plans to host arrays. Every dispatch gets new arrays, because a running step may still read the
last ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chorus_server.engine.executor.prefill import Admitted
from chorus_server.engine.executor.state import MAX_BEAMS, initial_slots, no_logit_bias
from chorus_server.engine.plans import Admission, BlockShape, RowLoad
from chorus_server.engine.protocols import HostPrompts
from chorus_server.engine.sampling import DEVICE_DTYPES, device_values
from chorus_server.errors import InternalError


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


def pack_targets(
    targets: Sequence[Sequence[Sequence[int]]], first: int, batch: int, shape: tuple[int, int]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Targets `first` to `first + C` of each input: `[B, C, T]` i32, and lengths `[B, C]` i32, 0 if there is
    none."""
    C, T = shape
    tokens, lengths = np.zeros((batch, C, T), np.int32), np.zeros((batch, C), np.int32)
    for row, wanted in enumerate(targets):
        for place, target in enumerate(wanted[first : first + C]):
            if len(target) > T:
                raise InternalError(f"a plan puts a target of {len(target)} tokens in a bucket of {T}")
            tokens[row, place, : len(target)] = target
            lengths[row, place] = len(target)
    return tokens, lengths


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
