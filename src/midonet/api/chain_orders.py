"""The order of the rules of chains, as far as this process has read it.

The rank of a rule never changes, so only the rules that came since are read: a rule is put into
a chain of 10,000 without reading the others. Only when another process deletes a rule and makes
one with its id do we know a wrong rank; whoever reads the rule notices and says so.
"""

from __future__ import annotations

from bisect import insort
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence

from midonet.model.chains import Rule, evaluation_order
from midonet.model.ids import ObjectId, RuleId
from midonet.nsdb.store import Store

_MAX_RULES = 200_000
"""Rules remembered; chains that were not asked for longest are forgotten first."""


class ChainOrder:
    """Ranks and ids of the rules of one chain, in order."""

    def __init__(self) -> None:
        self._entries: list[tuple[str, RuleId]] = []
        self._ranks: dict[ObjectId, str] = {}
        self._positions: dict[ObjectId, int] | None = None

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def rule_ids(self) -> list[RuleId]:
        """Rules in the order of evaluation."""
        return [rule_id for _, rule_id in self._entries]

    @property
    def positions(self) -> Mapping[ObjectId, int]:
        """Position of each rule, from 1."""
        if self._positions is None:
            self._positions = {
                rule_id: index + 1 for index, (_, rule_id) in enumerate(self._entries)
            }
        return self._positions

    def neighbours(self, position: int) -> tuple[RuleId | None, RuleId | None]:
        """Return the rules between which a rule at a position (from 1) comes."""
        count = len(self._entries)
        low = self._entries[position - 2][1] if 1 < position <= count + 1 else None
        high = self._entries[position - 1][1] if position <= count else None
        return low, high

    def rank_of(self, rule_id: ObjectId | None) -> str | None:
        """Return the rank of a rule, None when it is unknown."""
        return None if rule_id is None else self._ranks.get(rule_id)

    def agrees(self, rules: Iterable[Rule]) -> bool:
        """Tell whether the ranks of these rules are those that are known, as far as they are."""
        return all(self.rank_of(rule.id) in (None, rule.rank) for rule in rules)

    def missing(self, rule_ids: Sequence[ObjectId]) -> list[ObjectId]:
        """Forget all but these rules; return those whose rank is not known."""
        unknown = [rule_id for rule_id in rule_ids if rule_id not in self._ranks]
        if len(self._ranks) + len(unknown) != len(rule_ids):
            kept = set(rule_ids)
            self._entries = [entry for entry in self._entries if entry[1] in kept]
            self._ranks = {rule_id: rank for rank, rule_id in self._entries}
            self._positions = None
        return unknown

    def add(self, rules: Sequence[Rule]) -> None:
        """Take rules whose rank was not known."""
        if not rules:
            return
        self._positions = None
        entries = sorted(evaluation_order(rule) for rule in rules)
        if len(entries) == 1:
            insort(self._entries, entries[0])
        else:
            self._entries = sorted([*self._entries, *entries])
        self._ranks.update((rule_id, rank) for rank, rule_id in entries)


class ChainOrders:
    """Orders of the chains of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._orders: OrderedDict[ObjectId, ChainOrder] = OrderedDict()

    async def read_anew(self, chain_id: ObjectId) -> ChainOrder:
        """Return the present order of a chain without trusting what was read of it."""
        self._orders.pop(chain_id, None)
        return await self.of(chain_id)

    async def of(self, chain_id: ObjectId) -> ChainOrder:
        """Return the present order of a chain, empty when there is none."""
        rule_ids = await self._store.referrers(Rule, "chain_id", chain_id)
        order = self._orders.setdefault(chain_id, ChainOrder())
        # Another call may change the order while this one reads: it is brought to our state last.
        while unknown := order.missing(rule_ids):
            found = await self._store.get_many(Rule, unknown)
            rule_ids = [one for one in rule_ids if one in found or one not in unknown]
            order.add([found[one].value for one in order.missing(rule_ids) if one in found])
        self._remember(chain_id, order)
        return order

    def _remember(self, chain_id: ObjectId, order: ChainOrder) -> None:
        self._orders[chain_id] = order
        self._orders.move_to_end(chain_id)
        total = sum(map(len, self._orders.values()))
        while total > _MAX_RULES and len(self._orders) > 1:
            total -= len(self._orders.popitem(last=False)[1])
