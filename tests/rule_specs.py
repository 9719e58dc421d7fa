"""Rules for test networks, in few words (`tests.worlds.World.chain`)."""

from __future__ import annotations

from dataclasses import dataclass

from midonet.model.chains import FlowAction, L2Transform, NatTarget


def rule(action: str, *, jump: str | None = None, **condition: object) -> RuleSpec:
    """Return a rule for `World.chain`. Keywords are fields of Condition; ports go by name."""
    return RuleSpec(action, jump, condition)


def nat(
    action: str, *targets: str, then: FlowAction = FlowAction.ACCEPT, **condition: object
) -> RuleSpec:
    """Return a rule of NAT. Each target is `ADDRESS[-ADDRESS][ PORT[-PORT]]`."""
    return RuleSpec(action, None, condition, tuple(map(_target, targets)), then)


def retag(
    *,
    pop: bool = False,
    push: int = 0,
    to: str | None = None,
    ingress: bool = False,
    fail_open: bool = False,
    **condition: object,
) -> RuleSpec:
    """Return an l2_transform rule. to: the port that it redirects to; None accepts."""
    transform = L2Transform(pop_vlan=pop, push_vlan=push, ingress=ingress, fail_open=fail_open)
    then = FlowAction.REDIRECT if to else FlowAction.ACCEPT
    return RuleSpec("l2_transform", None, condition, (), then, transform, to)


def _target(text: str) -> NatTarget:
    addresses, _, ports = text.partition(" ")
    first, _, last = addresses.partition("-")
    low, _, high = ports.partition("-")
    return NatTarget(first, last or first, int(low or 0), int(high or low or 0))


@dataclass(frozen=True, slots=True)
class RuleSpec:
    """A rule before its chain gives it an identifier."""

    action: str
    jump: str | None
    condition: dict[str, object]
    targets: tuple[NatTarget, ...] = ()
    then: FlowAction | None = None
    transform: L2Transform | None = None
    to: str | None = None
