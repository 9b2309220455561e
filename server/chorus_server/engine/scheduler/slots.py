"""Which request decodes in which slot: blocks, their modes, releases, and who may take the last slots."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from chorus_server.engine.plans import BlockMode, BlockShape
from chorus_server.engine.requests import Priority
from chorus_server.engine.scheduler.tickets import Ticket


@dataclass(eq=False, slots=True)
class SlotUse:
    """One slot of a ticket.

    Attributes:
        place: 0, or its place among samples or beams.
        planned: how many decode steps were dispatched for it.
        over: whether the device is done with it, or the scheduler no longer needs it.
    """

    ticket: Ticket
    place: int
    limit: int
    planned: int = 0
    over: bool = False


@dataclass(eq=False, slots=True)
class Block:
    """One decode block.

    Attributes:
        uses: occupied slots.
        to_release: slots that the block's next plan must tell the device to drop.
        releasing: slots whose release was dispatched in a step that was not collected; they are not free yet.
        in_flight: decode steps that were dispatched and not collected.
        last_decode: the last step in which it decoded; the smallest goes first.
    """

    index: int
    shape: BlockShape
    mode: BlockMode | None = None
    uses: dict[int, SlotUse] = field(default_factory=dict)
    to_release: set[int] = field(default_factory=set)
    releasing: Counter[int] = field(default_factory=Counter)
    in_flight: int = 0
    last_decode: int = 0

    @property
    def busy(self) -> set[int]:
        """Slots that cannot be given out."""
        return self.uses.keys() | self.to_release | self.releasing.keys()

    @property
    def wants_decode(self) -> bool:
        """Whether a decode plan would do anything that is not already in flight."""
        if self.to_release:
            return True
        live = [use for use in self.uses.values() if not use.over]
        return any(use.planned < use.limit for use in live) or bool(live and not self.in_flight)

    @property
    def working(self) -> int:
        """How many slots have tokens to make that no step in flight makes."""
        return sum(not use.over and use.planned < use.limit for use in self.uses.values())

    @property
    def steps_left(self) -> int:
        """The most decode steps until the block is empty."""
        return max((use.limit - use.planned for use in self.uses.values() if not use.over), default=0)

    def free_slots(self) -> list[int]:
        """Slots to give out, lowest first."""
        busy = self.busy
        return [slot for slot in range(self.shape.slots) if slot not in busy]

    def close(self, slot: int) -> None:
        """Free a slot that its ticket no longer needs, and tell the device to drop it unless it already
        has."""
        use = self.uses.pop(slot)
        if not use.over:
            self.to_release.add(slot)
        use.over = True
        self.settle_mode()

    def stop(self, slot: int) -> None:
        """Stop a slot that its ticket keeps because others of its group go on."""
        self.uses[slot].over = True
        self.to_release.add(slot)

    def released(self, slots: Sequence[int]) -> None:
        """A step that released `slots` was collected."""
        for slot in slots:
            self.releasing[slot] -= 1
            if not self.releasing[slot]:
                del self.releasing[slot]
        self.settle_mode()

    def settle_mode(self) -> None:
        """Allow an empty block to change its mode."""
        if not self.busy:
            self.mode = None


@dataclass(frozen=True, slots=True)
class _Reservation:
    """A block kept for `ticket`. Tickets accepted earlier in the same planning pass (`ahead`) may still use
    it."""

    ticket: Ticket
    ahead: frozenset[Ticket]

    def admits(self, ticket: Ticket) -> bool:
        """Whether `ticket` may use the block nevertheless."""
        return ticket is self.ticket or ticket in self.ahead


MayTakeLast = Callable[[Ticket, int, int], bool]
"""Called with (ticket, slots of the shape that its tenant holds, all slots of the shape). Returns whether the
tenant is below its fair share."""


class SlotTable:
    """All blocks.

    `kept_free` slots of each shape are kept for tenants for whom `below_share` is true. A ticket that finds
    no place may *reserve* a block for the rest of one planning pass. Tickets behind it in the fair order then
    leave that block alone, so that it empties (to change its mode) or gathers enough free slots (for a large
    group).
    """

    def __init__(self, shapes: Sequence[BlockShape], kept_free: int, below_share: MayTakeLast) -> None:
        self.blocks = [Block(index, shape) for index, shape in enumerate(shapes)]
        self._by_shape: dict[BlockShape, list[Block]] = {}
        for block in self.blocks:
            self._by_shape.setdefault(block.shape, []).append(block)
        self._held: Counter[tuple[BlockShape, str]] = Counter()
        self._kept_free = kept_free
        self._below_share = below_share
        self._reservations: dict[int, _Reservation] = {}
        self._accepted: set[Ticket] = set()
        self._refused: set[tuple[BlockShape, int, str, Priority]] = set()
        self._full: set[tuple[BlockShape, int]] = set()

    @property
    def in_use(self) -> int:
        return sum(len(block.busy) for block in self.blocks)

    @property
    def total(self) -> int:
        return sum(block.shape.slots for block in self.blocks)

    @property
    def most_slots(self) -> int:
        """Of the shape that has most."""
        return max(sum(block.shape.slots for block in blocks) for blocks in self._by_shape.values())

    @property
    def groups(self) -> int:
        """Number of encoder memories held: one for each group."""
        return sum(len({id(use.ticket) for use in block.uses.values()}) for block in self.blocks)

    def begin_pass(self) -> None:
        """Begin a planning pass. Reservations of the last one lapse."""
        self._reservations.clear()
        self._accepted.clear()
        self._refused.clear()
        self._full.clear()

    @property
    def any_free(self) -> bool:
        """Whether a slot may be given out at all."""
        return any(len(block.busy) < block.shape.slots for block in self.blocks)

    def refused(self, ticket: Ticket) -> bool:
        """Whether a similar ticket found no place in this planning pass: free places only become fewer."""
        shape, need, origin = ticket.fit.shape, ticket.fit.slots, ticket.origin
        return shape is not None and (
            (shape, need) in self._full or (shape, need, origin.tenant, origin.priority) in self._refused
        )

    def has_place(self, ticket: Ticket) -> bool:
        """Whether `place` would succeed. A ticket that finds no place may reserve a block."""
        shape, need = ticket.fit.shape, ticket.fit.slots
        if shape is None or self.refused(ticket):
            return False
        similar = (shape, need, ticket.origin.tenant, ticket.origin.priority)
        roomy = self._room(ticket, shape) is not None
        if roomy and self._may_take(ticket, shape):
            self._accepted.add(ticket)
            return True
        if not roomy and self._reserve(ticket, shape):
            self._full.add((shape, need))
        else:
            self._refused.add(similar)
        return False

    def place(self, ticket: Ticket) -> bool:
        """Give the ticket its slots. If there are none, returns False and changes nothing."""
        found = self._find(ticket)
        if found is None:
            return False
        block, slots = found
        block.mode = ticket.fit.mode
        limit = ticket.generate.sampling.max_new_tokens
        for place, slot in enumerate(slots):
            block.uses[slot] = SlotUse(ticket, place, limit)
        ticket.block, ticket.slots = block.index, slots
        self._held[(block.shape, ticket.origin.tenant)] += len(slots)
        return True

    def leave(self, ticket: Ticket, *, inactive: bool = False) -> None:
        """Take back all slots of a ticket. `inactive` says that the device has nothing in them."""
        if ticket.block is None:
            return
        block = self.blocks[ticket.block]
        for slot in ticket.slots:
            block.uses[slot].over |= inactive
            block.close(slot)
        held = (block.shape, ticket.origin.tenant)
        self._held[held] -= len(ticket.slots)
        if not self._held[held]:
            del self._held[held]
        ticket.block, ticket.slots = None, ()

    def parts_held(self) -> dict[str, float]:
        """The part of the slots that each tenant holds, in [0, 1]: of the shape of which it holds the largest
        part, because slots of other shapes may be of no use to it."""
        parts: dict[str, float] = {}
        for (shape, tenant), slots in self._held.items():
            total = sum(block.shape.slots for block in self._by_shape[shape])
            parts[tenant] = max(parts.get(tenant, 0.0), slots / total)
        return parts

    def _find(self, ticket: Ticket) -> tuple[Block, tuple[int, ...]] | None:
        shape = ticket.fit.shape
        return self._room(ticket, shape) if shape is not None and self._may_take(ticket, shape) else None

    def _room(self, ticket: Ticket, shape: BlockShape) -> tuple[Block, tuple[int, ...]] | None:
        """Free slots of a block in the right mode, whoever may take them."""
        need = ticket.fit.slots
        for block in self._by_shape[shape]:
            reservation = self._reservations.get(block.index)
            if block.mode not in (None, ticket.fit.mode) or (reservation and not reservation.admits(ticket)):
                continue
            free = block.free_slots()
            if len(free) >= need:
                return block, tuple(free[:need])
        return None

    def _may_take(self, ticket: Ticket, shape: BlockShape) -> bool:
        blocks = self._by_shape[shape]
        total = sum(block.shape.slots for block in blocks)
        free = total - sum(len(block.busy) for block in blocks)
        held = self._held[(shape, ticket.origin.tenant)]
        return free - ticket.fit.slots >= self._kept_free or self._below_share(ticket, held, total)

    def _reserve(self, ticket: Ticket, shape: BlockShape) -> bool:
        """Reserve a block if that helps. False if the ticket may not, because its tenant holds enough."""
        unreserved = [block for block in self._by_shape[shape] if block.index not in self._reservations]
        same = [block for block in unreserved if block.mode == ticket.fit.mode]
        if same and ticket.fit.slots == 1:
            return True  # a slot of its mode will come free anyway
        if not self._may_take(ticket, shape):
            return False
        candidates = same or unreserved
        if candidates:
            soonest = min(candidates, key=lambda block: (block.steps_left, block.index))
            self._reservations[soonest.index] = _Reservation(ticket, frozenset(self._accepted))
        return True

    def check_idle(self) -> None:
        """Raises AssertionError if a slot is still held."""
        for block in self.blocks:
            if block.busy or block.in_flight or block.mode is not None:
                raise AssertionError(f"block {block.index} still holds slots {sorted(block.busy)}")
        if self._held:
            raise AssertionError(f"slots are still counted for {dict(self._held)}")
