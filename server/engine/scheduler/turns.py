"""Encoder passes and decode steps take turns, so that neither new requests nor those under way starve."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from server.engine.scheduler.fair_queue import Waiting
from server.engine.scheduler.shares import Shares
from server.engine.scheduler.slots import Block, SlotTable
from server.engine.scheduler.tickets import Ticket


class Turns:
    """Whose turn it is.

    Every block that wants to decode does so once after a full encoder pass, the largest of its length, or
    after smaller ones that add up to one: slots come free a few at a time, and a round for each pass of a row
    or two would leave the others empty meanwhile. A decode round costs the same however few of its slots are
    taken, so while one tenant is alone only a block that is more than half full holds up the next pass, or
    one that has waited for `token_budget` padded tokens.

    A tenant is *quiet* while it holds less than half its fair share of all slots, *busy* while it holds more
    than its share. A quiet tenant's request may go ahead of the decode round, once between two rounds. A busy
    tenant's request waits a round after each pass while a tenant within its share decodes, and
    `protect_rounds` rounds after a full pass, fewer after a smaller one, while a quiet tenant does: fewer and
    fuller passes of others between the quiet one's tokens.
    """

    def __init__(self, slots: SlotTable, shares: Shares, protect_rounds: int, token_budget: int) -> None:
        self._slots = slots
        self._shares = shares
        self._protect_rounds = protect_rounds
        self._token_budget = token_budget
        self._last_pass = 0
        self._rounds: dict[int, int] = {}
        self._waited: Counter[int] = Counter()
        self._jumped = False
        # In full passes: encoded since the last round; that with another pass like the last one, at most 1.
        self._encoded = 0.0
        self._share = 1.0

    def encoder_may_go(self, head: Waiting[Ticket] | None) -> bool:
        """Whether the next step may be an encoder pass; `head` is the request whose turn it would be."""
        wanting = [block for block in self._slots.blocks if block.wants_decode]
        if not wanting or head is None:
            return True
        if self._shares.alone:
            return not any(self._due(block) for block in wanting)
        return min(self._rounds.get(block.index, 1) for block in wanting) >= self._owed(head)

    def waits_for_results(self, head: Waiting[Ticket] | None) -> bool:
        """Whether a pass of `head` is better planned when nothing is in flight: a busy tenant's pass behind
        another step is what a quiet tenant's next request would find before it."""
        if head is None or self._shares.alone:
            return False
        held, total = self._slots.held_by_tenant(), self._slots.total
        quiet = any(2 * held[name] < self._shares.fair(name, total) for name in self._shares.tenants)
        return quiet and held[head.tenant] > self._shares.fair(head.tenant, total)

    def next_to_decode(self, wanting: Sequence[Block]) -> Block:
        """Which of these blocks decodes now: one that holds up the encoder, else the longest without."""
        return min(wanting, key=lambda block: (not self._due(block), block.last_decode, block.index))

    def encoded(self, tokens: int, most_tokens: int) -> None:
        """An encoder pass of so many padded tokens was planned; a full one of its length has
        `most_tokens`."""
        wanting = [block for block in self._slots.blocks if block.wants_decode]
        self._jumped = any(not self._rounds.get(block.index, 1) for block in wanting)
        self._encoded += tokens / most_tokens
        self._share = min(1.0, self._encoded + tokens / most_tokens)
        self._rounds = {block.index: 0 for block in self._slots.blocks}
        self._last_pass = tokens
        self._waited.update({block.index: tokens for block in wanting})

    def decoded(self, block: Block) -> None:
        """A decode step of `block` was planned."""
        self._rounds[block.index] = self._rounds.get(block.index, 1) + 1
        self._jumped = False
        self._encoded = 0.0
        del self._waited[block.index]

    def _due(self, block: Block) -> bool:
        """Whether a block that wants to decode should do so before another pass like the last one."""
        if self._rounds.get(block.index, 1) or self._share < 1:
            return False
        late = self._waited[block.index] + self._last_pass > self._token_budget
        return late or 2 * block.working > block.shape.slots

    def _owed(self, head: Waiting[Ticket]) -> int:
        """Decode rounds before the next encoder pass, where there are several tenants."""
        held, total = self._slots.held_by_tenant(), self._slots.total
        fair = {name: self._shares.fair(name, total) for name in (*held, head.tenant)}
        if 2 * held[head.tenant] < fair[head.tenant]:
            # A score holds no slot, so its tenant would always look quiet.
            return 1 if self._jumped or head.item.kind == "score" else 0
        within = [name for name, count in held.items() if count <= fair[name]]
        if held[head.tenant] <= fair[head.tenant] or not within:
            return int(self._share)
        quiet = any(2 * held[name] < fair[name] for name in within)
        return max(1, int(self._share * (self._protect_rounds if quiet else 1)))
