"""Evaluation of chains: rules in order until one decides.

A rule of NAT that cannot act on the packet is passed over, whatever it says comes then.

A jump to a chain that was already visited in the same evaluation goes on with the next rule, so
a chain runs at most once a hook; RETURN goes back to the caller; RETURN at the top, and the end
of the rules, accept. A chain that does not exist drops.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum

from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.flows.tags import FlowTag, TagKind
from midonet.agent.simulation.condition import Test, compile_condition
from midonet.agent.simulation.following import of_follower, translates_ports
from midonet.agent.simulation.nat import apply_nat
from midonet.agent.simulation.redirecting import apply_transform
from midonet.agent.simulation.rewriting import is_follower
from midonet.agent.simulation.rule_index import INDEXED_FROM, Search
from midonet.agent.simulation.trace import MetRule
from midonet.agent.simulation.walk import MAX_RULES, Dropped, Outcome, Refusal, Walk
from midonet.agent.topology.view import ChainView, RuleView
from midonet.model.chains import NAT, FlowAction, RuleAction
from midonet.model.ids import ChainId

MAX_NESTING = 25
"""Chains that may be open at once, the top one included."""


class Decision(IntEnum):
    """What a chain says of a packet."""

    ACCEPT = 0
    REJECT = 1
    CONTINUE = 2
    RETURN = 3


_AFTER_NAT = {
    FlowAction.ACCEPT: Decision.ACCEPT,
    FlowAction.CONTINUE: Decision.CONTINUE,
    FlowAction.RETURN: Decision.RETURN,
}


def _compile(rule: RuleView) -> Test:
    """Return the test of a rule; it is made once for each version of it."""
    test = compile_condition(rule.condition)
    if translates_ports(rule):
        test = _with_followers(test, compile_condition(of_follower(rule.condition)))
    rule.compiled.form = test
    return test


def _with_followers(test: Test, of_followers: Test) -> Test:
    def matches(walk: Walk) -> bool | None:
        return of_followers(walk) if is_follower(walk) else test(walk)

    return matches


def evaluate_chain(walk: Walk, chain_id: ChainId) -> Decision | Outcome:
    """Return what the chain says: ACCEPT or REJECT, or what becomes of the packet instead."""
    result = _evaluate(walk, chain_id, set(), 1)
    return Decision.ACCEPT if result is Decision.CONTINUE else result


def _evaluate(
    walk: Walk, chain_id: ChainId, visited: set[ChainId], depth: int
) -> Decision | Outcome:
    chain = _begin(walk, chain_id, depth)
    if not isinstance(chain, ChainView):
        return chain
    visited.add(chain_id)
    if len(chain.rules) < INDEXED_FROM:
        return _meet(walk, chain, enumerate(chain.rules, 1), visited, depth)
    search = Search(walk, chain)
    result = _meet(walk, chain, search, visited, depth)
    search.record()
    return result


def _meet(
    walk: Walk,
    chain: ChainView,
    rules: Iterable[tuple[int, RuleView]],
    visited: set[ChainId],
    depth: int,
) -> Decision | Outcome:
    """Return what the first rule that decides says. rules: those that may match, with their
    positions from 1."""
    chain_id = chain.id
    reached = 0
    for met, rule in rules:
        matched = (rule.compiled.form or _compile(rule))(walk)
        if walk.findings.steps is not None:
            _note_passed_over(walk, chain, reached, met - 1)
            reached = met
        if walk.findings.steps is not None:
            walk.step(MetRule(chain_id, rule.id, met, rule.action, bool(matched)))
        if not matched:
            if matched is None:
                return Dropped(DropReason.MISSING_GROUP, object_id=rule.id)
            continue
        walk.findings.rules += met
        action = rule.action
        if action is RuleAction.ACCEPT:
            return Decision.ACCEPT
        if action is RuleAction.DROP:
            return Dropped(DropReason.FILTERED, object_id=rule.id)
        if action is RuleAction.REJECT:
            return Decision.REJECT
        if action is RuleAction.RETURN:
            return Decision.CONTINUE
        result = _go_on(walk, rule, visited, depth)
        if result is not Decision.CONTINUE:
            return Decision.CONTINUE if result is Decision.RETURN else result
        walk.findings.rules -= met
    walk.findings.rules += len(chain.rules)
    if walk.findings.steps is not None:
        _note_passed_over(walk, chain, reached, len(chain.rules))
    return Decision.CONTINUE


def _note_passed_over(walk: Walk, chain: ChainView, start: int, end: int) -> None:
    """Enter a trace step for each rule that was not tried, as it could not match."""
    for position in range(start, end):
        rule = chain.rules[position]
        walk.step(MetRule(chain.id, rule.id, position + 1, rule.action, is_matching=False))


def _begin(walk: Walk, chain_id: ChainId, depth: int) -> ChainView | Refusal:
    """Return a chain that is to be evaluated now, or why it cannot be."""
    walk.findings.tags.append(FlowTag(TagKind.CHAIN, chain_id))
    chain = walk.inputs.view.chains.get(chain_id)
    if chain is None:
        return walk.unavailable(chain_id, DropReason.MISSING_CHAIN)
    if depth > MAX_NESTING:
        return Dropped(DropReason.CHAIN_LIMIT, object_id=chain_id)
    if walk.findings.rules > MAX_RULES:
        return Dropped(DropReason.RULE_LIMIT, is_final=True, object_id=chain_id)
    return chain


def _go_on(walk: Walk, rule: RuleView, visited: set[ChainId], depth: int) -> Decision | Outcome:
    """Jump, translate or redirect; CONTINUE when the next rule is to be met."""
    if rule.action is RuleAction.JUMP:
        return _jump(walk, rule, visited, depth)
    if rule.action in NAT:
        return _translate(walk, rule)
    return apply_transform(walk, rule) or Decision.ACCEPT


def _translate(walk: Walk, rule: RuleView) -> Decision | Refusal:
    """Let a rule of NAT act; CONTINUE when it cannot. Who watches sees what was copied."""
    if walk.branch.copy:
        return Decision.CONTINUE
    acted = apply_nat(walk, rule)
    if not isinstance(acted, bool):
        return acted
    return _AFTER_NAT[rule.flow_action or FlowAction.CONTINUE] if acted else Decision.CONTINUE


def _jump(walk: Walk, rule: RuleView, visited: set[ChainId], depth: int) -> Decision | Outcome:
    target = rule.jump_chain_id
    if target is None:
        return Dropped(DropReason.MISSING_CHAIN, object_id=rule.id)
    if target in visited:
        return Decision.CONTINUE
    return _evaluate(walk, target, visited, depth + 1)
