"""Which groups are visible: those that rules and ports name, with the members of address groups.

A group is in the view before what names it is. One whose deletion is seen before that of the
rules that name it stays as it was last known, until no visible chain uses it or the caller's
grace is over. A rule that names a group that is not in the view fails closed. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress

from midonet.agent.topology.address_set import AddressSet
from midonet.agent.topology.draft import ViewDraft
from midonet.agent.topology.facts import Facts, members_of
from midonet.agent.topology.tracker import Dirty
from midonet.agent.topology.view import RuleView
from midonet.errors import DecodeError
from midonet.model.chains import Condition, address_groups_of, naming_groups, port_groups_of
from midonet.model.groups import IpAddressGroup, PortGroup
from midonet.model.ids import ChainId, IpAddressGroupId, ObjectId, PortGroupId
from midonet.packets.addresses import IpPrefix, parse_prefix


class VisibleGroups:
    """Puts groups into the draft.

    undecodable: objects that cannot be understood, with the reason; groups are added to it.
    """

    def __init__(self, facts: Facts, draft: ViewDraft, undecodable: dict[ObjectId, str]) -> None:
        self._facts = facts
        self._draft = draft
        self._undecodable = undecodable
        self._sets: dict[IpAddressGroupId, AddressSet] = {}
        self._users: dict[ObjectId, set[ChainId]] = {}
        self._uses: dict[ChainId, frozenset[ObjectId]] = {}
        self._retiring: set[ObjectId] = set()

    @property
    def is_holding(self) -> bool:
        """Tell whether a group waits to go."""
        return bool(self._retiring)

    def advance(self, dirty: Dirty) -> None:
        """Take over what was told of groups and members."""
        for port_group_id in dirty.port_groups:
            self._port_group(port_group_id)
        for group_id, changed in dirty.members.items():
            self._address_group(group_id, changed)

    def are_known(self, conditions: Iterable[Condition]) -> bool:
        """Tell whether the groups that conditions name, or their absence, are known."""
        return all(map(self._is_known, naming_groups(conditions)))

    def _is_known(self, condition: Condition) -> bool:
        facts = self._facts
        return all(facts.is_answered(PortGroup, one) for one in port_groups_of(condition)) and all(
            facts.is_absent(IpAddressGroup, one)
            or (
                facts.is_answered(IpAddressGroup, one)
                and facts.entries(members_of(one)) is not None
            )
            for one in address_groups_of(condition)
        )

    def use(self, chain_id: ChainId, rules: Iterable[RuleView]) -> None:
        """Note which groups a visible chain names; without rules it is visible no more."""
        named: set[ObjectId] = set()
        for condition in naming_groups(rule.condition for rule in rules):
            named.update(port_groups_of(condition), address_groups_of(condition))
        new = frozenset(named)
        old = self._uses.get(chain_id, frozenset())
        if new == old:
            return
        self._uses[chain_id] = new
        if not new:
            del self._uses[chain_id]
        for group_id in old - new:
            users = self._users[group_id]
            users.discard(chain_id)
            if not users:
                del self._users[group_id]
        for group_id in new - old:
            self._users.setdefault(group_id, set()).add(chain_id)

    def retire(self, *, settle: bool) -> None:
        """Let go of deleted groups that no visible chain names any more."""
        for group_id in list(self._retiring):
            if settle or group_id not in self._users:
                self._retiring.discard(group_id)
                self._hide(group_id)

    def forget_unwatched(self) -> None:
        """Take groups out that nothing names any more."""
        facts, draft = self._facts, self._draft
        gone: list[ObjectId] = [
            *(one for one in draft.port_groups.current if not facts.is_answered(PortGroup, one)),
            *(
                one
                for one in draft.address_groups.current
                if not facts.is_answered(IpAddressGroup, one)
            ),
        ]
        for group_id in gone:
            self._retiring.discard(group_id)
            self._hide(group_id)

    def _hide(self, group_id: ObjectId) -> None:
        self._undecodable.pop(group_id, None)
        self._sets.pop(IpAddressGroupId(group_id), None)
        self._draft.port_groups.put(PortGroupId(group_id), None)
        self._draft.address_groups.put(IpAddressGroupId(group_id), None)

    def _port_group(self, group_id: PortGroupId) -> None:
        group = self._facts.get(PortGroup, group_id)
        if group is not None:
            self._retiring.discard(group_id)
            self._draft.port_groups.put(group_id, group.stateful)
        elif group_id in self._draft.port_groups:
            self._retiring.add(group_id)

    def _address_group(self, group_id: IpAddressGroupId, changed: dict[str, bool]) -> None:
        keys = self._facts.entries(members_of(group_id))
        if self._facts.get(IpAddressGroup, group_id) is None:
            self._sets.pop(group_id, None)
            if group_id in self._draft.address_groups:
                self._retiring.add(group_id)
            return
        if keys is None:
            return
        self._retiring.discard(group_id)
        shown = self._sets.get(group_id)
        try:
            if shown is None:
                members = AddressSet(map(parse_prefix, keys))
            else:
                added = [parse_prefix(text) for text, is_there in changed.items() if is_there]
                members = shown.updated(removed=_gone(changed), added=added)
        except DecodeError as error:
            # One member that is not understood: which packets are meant is not known.
            self._sets.pop(group_id, None)
            self._draft.address_groups.put(group_id, None)
            self._undecodable[group_id] = str(error)
            return
        self._undecodable.pop(group_id, None)
        self._sets[group_id] = members
        self._draft.address_groups.put(group_id, members)


def _gone(changed: dict[str, bool]) -> Iterator[IpPrefix]:
    """Yield what is a member no more. What cannot be understood never was one."""
    for text, is_there in changed.items():
        if not is_there:
            with suppress(DecodeError):
                yield parse_prefix(text)
