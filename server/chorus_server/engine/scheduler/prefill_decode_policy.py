"""Prefill and decode steps take turns, so that neither new requests nor running ones starve."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set

from chorus_server.engine.scheduler.fair_queue import Waiting
from chorus_server.engine.scheduler.shares import Shares
from chorus_server.engine.scheduler.slots import Block, SlotTable
from chorus_server.engine.scheduler.steps import DecodeStep, Step
from chorus_server.engine.scheduler.tickets import Ticket

INTERACTIVE_SHARE = 9
"""How much more service interactive requests get than a batch of the same tenant."""

_MOST_PROTECTED = 0.5
"""The share of the recent decode steps, by their time, with a quiet tenant in them, up to which a backlog
makes busy. Where quiet tenants decode nearly always, slots that nobody may fill would cost too much. Up to
this share a quiet tenant's prefill step is its own too, and answers of busy tenants wait."""

_RECENT = 0.02
"""Weight of the newest decode step in that share, of a block whose steps are the shortest; others count by as
much more as they take longer."""


class PrefillDecodePolicy:
    """Decides whether the next step is a prefill step or a decode step, and of which block.

    After a full prefill step (the largest of its length), or several smaller ones that add up to one, every
    block that has something to decode gets one decode step. Slots come free a few at a time; a decode step
    after each prefill step of one or two rows would leave the other slots empty meanwhile. A decode step
    costs the same however few of its slots are in use. So while only one tenant has requests, a block delays
    the next prefill step only if it is more than half full, or has waited for `token_budget` padded tokens.

    A tenant is *quiet* while it holds at most half its fair share of the slots of every shape, and *busy*
    while it holds more than its share of some, or has more requests waiting than its share has slots: while a
    quiet tenant is protected, a busy one's slots come free, and it would pass for a quiet one (but see
    `_MOST_PROTECTED`). A quiet tenant's request may be encoded before the decode step that is due, once
    between two decode steps. A busy tenant's request waits for one decode step after each prefill step while
    a tenant within its share decodes, and for `protect_rounds` while a quiet tenant does: so an answer of a
    few decode steps is not interrupted. It is not encoded in a quiet tenant's step either, which it would
    make longer (but see `_MOST_PROTECTED`), unless that scores. And after a decode step of a block in which
    no quiet tenant decodes come as many of those in which one does as take as long together (but see
    `_MOST_PROTECTED`).

    Within a tenant, interactive requests that decode go before its batch. A prefill step of batch requests
    may come once they have had `INTERACTIVE_SHARE` times as long as such a step takes. Until then it is
    *held back*: all others go before it, and it only joins their steps. A block in which only batch
    requests decode goes after as many decode steps of others. An interactive request is encoded before the
    decode step of such a block, unless that has waited for `token_budget` padded tokens.
    """

    def __init__(
        self,
        slots: SlotTable,
        shares: Shares,
        waiting: Callable[[str], int],
        protect_rounds: int,
        token_budget: int,
    ) -> None:
        self._slots = slots
        self._shares = shares
        self._waiting = waiting
        self._most_slots = slots.most_slots
        self._protected = 0.0
        self._protect_rounds = protect_rounds
        self._token_budget = token_budget
        self._last_tokens = 0
        self._rounds: dict[int, int] = {}
        self._ahead = 0.0
        self._step_seconds: dict[int, float] = {}
        self._waited: Counter[int] = Counter()
        self._jumped = False
        self._batch_seconds = 0.0
        self._decoded_seconds: dict[str, float] = {}
        # Counted in full prefill steps: those since the last decode step; and the same plus one more like the
        # last, at most 1.
        self._encoded = 0.0
        self._share = 1.0

    def held_back(self) -> Set[str]:
        """Tenants whose batch has no turn to be encoded, since interactive requests of theirs decode."""
        least = INTERACTIVE_SHARE * self._batch_seconds
        return {name for name in self._interactive() if self._decoded_seconds.get(name, 0.0) < least}

    def may_prefill(self, head: Waiting[Ticket]) -> bool:
        """Whether the next step may be a prefill step; `head` is the request whose turn it would be, and is
        not held back."""
        interactive = self._interactive()
        if head.item.origin.priority == "interactive":
            interactive.add(head.tenant)
        wanting = [block for block in self._slots.blocks if block.wants_decode]
        yielding = [block for block in wanting if self._batch_of(block, interactive)]
        if any(self._late(block) for block in yielding):
            return False
        others = [block for block in wanting if block not in yielding]
        if not others:
            return True
        if self._shares.alone:
            return not any(self._due(block) for block in others)
        return min(self._rounds.get(block.index, 1) for block in others) >= self._owed(head)

    def waits_for_results(self) -> bool:
        """Whether to plan a step only when nothing is in flight. A step that queues behind another delays a
        quiet tenant's next request by both, and is planned before it is known which slots come free."""
        if self._shares.alone:
            return False
        held = self._slots.parts_held()
        return any(self._quiet(name, held) for name in self._shares.tenants) and any(
            self._busy(name, held) for name in held
        )

    def may_join(self, head: Waiting[Ticket], tenant: str) -> bool:
        """Whether requests of a tenant may be encoded in the step of `head`. Those of a busy one would make a
        quiet tenant's step longer. Scores share their steps: they hold no slots, so their tenant would always
        look quiet, and however many it sends, each would cost a step."""
        if self._shares.alone or head.item.kind == "score" or not self._quiet_are_rare:
            return True
        held = self._slots.parts_held()
        return not (self._quiet(head.tenant, held) and self._busy(tenant, held))

    @property
    def quiet_decodes(self) -> bool:
        """Whether a quiet tenant decodes, and quiet tenants do not nearly always."""
        if self._shares.alone or not self._quiet_are_rare:
            return False
        held = self._slots.parts_held()
        return any(self._quiet(name, held) for name in held)

    def yields_to_quiet(self, tenant: str) -> bool:
        """Whether what the host does for a tenant should wait, because a quiet one decodes and it is busy."""
        return self.quiet_decodes and self._busy(tenant, self._slots.parts_held())

    def next_to_decode(self, wanting: Sequence[Block]) -> Block:
        """The block that decodes now: one with a quiet tenant, until these had as long as the last step of
        another; one that delays the next prefill step; else the one that has waited longest, where a block of
        a batch counts as having waited for less."""
        if len(wanting) == 1:
            return wanting[0]
        interactive, quiet = self._interactive(), self._blocks_of_quiet(wanting)

        def turn(block: Block) -> tuple[bool, bool, int, int]:
            yields = self._batch_of(block, interactive)
            later = INTERACTIVE_SHARE if yields else 0
            ahead = self._ahead > 0 and bool(quiet and block.uses) and block not in quiet
            return (ahead, yields or not self._due(block), block.last_decode + later, block.index)

        return min(wanting, key=turn)

    def encoded(self, tokens: int, most_tokens: int) -> None:
        """A prefill step of `tokens` padded tokens was planned; a full one of its length has
        `most_tokens`."""
        wanting = [block for block in self._slots.blocks if block.wants_decode]
        self._jumped = any(not self._rounds.get(block.index, 1) for block in wanting)
        self._encoded += tokens / most_tokens
        self._share = min(1.0, self._encoded + tokens / most_tokens)
        self._rounds = {block.index: 0 for block in self._slots.blocks}
        self._last_tokens = tokens
        self._waited.update({block.index: tokens for block in wanting})

    def decoded(self, block: Block) -> None:
        """A decode step of `block` was planned."""
        self._rounds[block.index] = self._rounds.get(block.index, 1) + 1
        self._jumped = False
        self._encoded = 0.0
        del self._waited[block.index]
        quiet = False
        if not self._shares.alone:
            held = self._slots.parts_held()
            tenants = {use.ticket.origin.tenant for use in block.uses.values()}
            quiet = any(self._few(name, held) and not self._has_backlog(name) for name in tenants)
        shortest = min(self._step_seconds.values(), default=0.0)
        times = self._step_seconds.get(block.index, 0.0) / shortest if shortest else 1.0
        self._protected += min(0.5, _RECENT * times) * (quiet - self._protected)

    def took(self, step: Step, seconds: float, *, alone: bool) -> None:
        """A step's result was read; it had the device for `seconds`. They say how long such a step takes if
        it was `alone`: if nothing else was in flight when it was planned."""
        if isinstance(step, DecodeStep):
            origins = {use.ticket.origin for use in step.uses.values()}
            tenants = {each.tenant for each in origins if each.priority == "interactive"}
            if alone:
                self._step_seconds[step.plan.block] = seconds
            self._note_turn(step, seconds)
            had = self._decoded_seconds
            self._decoded_seconds = {
                tenant: had.get(tenant, 0.0) + (seconds if tenant in tenants else 0.0)
                for tenant in self._interactive()
            }
            return
        batch = {ticket.origin.tenant for ticket in step.tickets if ticket.origin.priority == "batch"}
        if batch and all(ticket.origin.priority == "batch" for ticket in step.tickets):
            self._batch_seconds = seconds
        for tenant in batch:
            self._decoded_seconds.pop(tenant, None)

    def _note_turn(self, step: DecodeStep, seconds: float) -> None:
        """Blocks in which no quiet tenant decodes are ahead by their last step, less what the others took
        since."""
        if self._shares.alone or not step.uses:
            return
        held, tenants = self._slots.parts_held(), {use.ticket.origin.tenant for use in step.uses.values()}
        quiet = any(self._quiet(name, held) for name in tenants)
        self._ahead = max(0.0, self._ahead - seconds) if quiet else seconds

    def _blocks_of_quiet(self, wanting: Sequence[Block]) -> list[Block]:
        """Those in which a quiet tenant decodes; none where quiet tenants decode nearly always, for they
        would get half of the time however many others there are."""
        if self._shares.alone or not self._quiet_are_rare:
            return []
        held = self._slots.parts_held()
        quiet = {name for name in held if self._quiet(name, held)}
        return [
            block
            for block in wanting
            if any(use.ticket.origin.tenant in quiet for use in block.uses.values())
        ]

    def _interactive(self) -> set[str]:
        """Tenants of whom interactive requests decode."""
        uses = (use for block in self._slots.blocks for use in block.uses.values() if not use.over)
        return {use.ticket.origin.tenant for use in uses if use.ticket.origin.priority == "interactive"}

    @staticmethod
    def _batch_of(block: Block, tenants: Set[str]) -> bool:
        """Whether only batch requests of these tenants decode in a block."""
        origins = (use.ticket.origin for use in block.uses.values())
        return bool(block.uses) and all(
            each.priority == "batch" and each.tenant in tenants for each in origins
        )

    def _due(self, block: Block) -> bool:
        """Whether a block that wants to decode should do so before another prefill step like the last one."""
        if self._rounds.get(block.index, 1) or self._share < 1:
            return False
        return self._late(block) or 2 * block.working > block.shape.slots

    def _late(self, block: Block) -> bool:
        return self._waited[block.index] + self._last_tokens > self._token_budget

    def _owed(self, head: Waiting[Ticket]) -> int:
        """How many decode steps are due before the next prefill step, if there are several tenants."""
        held = self._slots.parts_held()
        if self._quiet(head.tenant, held):
            # A score holds no slot, so its tenant would always look quiet.
            return 1 if self._jumped or head.item.kind == "score" else 0
        within = [name for name in held if not self._busy(name, held)]
        if not self._busy(head.tenant, held) or not within:
            return int(self._share)
        if not any(self._quiet(name, held) for name in within):
            return 1
        return self._protect_rounds if self._quiet_are_rare else max(1, self._protect_rounds // 2)

    def _quiet(self, tenant: str, held: Mapping[str, float]) -> bool:
        return self._few(tenant, held) and not self._busy(tenant, held)

    def _busy(self, tenant: str, held: Mapping[str, float]) -> bool:
        if held.get(tenant, 0.0) > self._shares.fair(tenant, 1):
            return True
        return self._quiet_are_rare and self._has_backlog(tenant)

    @property
    def _quiet_are_rare(self) -> bool:
        return self._protected < _MOST_PROTECTED

    def _few(self, tenant: str, held: Mapping[str, float]) -> bool:
        return 2 * held.get(tenant, 0.0) <= self._shares.fair(tenant, 1)

    def _has_backlog(self, tenant: str) -> bool:
        return self._waiting(tenant) > self._shares.fair(tenant, self._most_slots)
