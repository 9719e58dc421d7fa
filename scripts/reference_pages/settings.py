"""`docs/reference/configuration.md`: every option, from the settings structs and the commands."""

from __future__ import annotations

import msgspec

from midonet.agent.host import settings as agent_settings
from midonet.agent.host.settings import AgentSettings
from midonet.cluster import settings as cluster_settings
from midonet.cluster.settings import ClusterSettings
from midonet.runtime.config import SHARED_PREFIX, option_type
from scripts.reference_pages.commands import option_strings
from scripts.reference_pages.effects import effects
from scripts.reference_pages.tables import code, table

_UNITS = {"_s": "s", "_ms": "ms", "_bytes": "bytes", "_port": "UDP port"}
"""By the end of an option's name."""


def agent_options() -> str:
    """Return the options of `midonet agent`."""
    return _options(AgentSettings, agent_settings.ENVIRONMENT_PREFIX, "agent")


def cluster_options() -> str:
    """Return the options of `midonet cluster`."""
    return _options(ClusterSettings, cluster_settings.ENVIRONMENT_PREFIX, "cluster")


def unit_of(name: str) -> str:
    """Return the unit that the end of an option's name says, or nothing."""
    if name.startswith("max_"):
        return ""
    return next((unit for end, unit in _UNITS.items() if name.endswith(end)), "")


def _options(kind: type[msgspec.Struct], prefix: str, command: str) -> str:
    what = effects(kind)
    flags = option_strings(command)
    rows = []
    for field in msgspec.structs.fields(kind):
        flag = "--" + field.name.replace("_", "-")
        rows.append(
            (
                code(field.name),
                _type(field),
                "required" if field.required else _default(field),
                what[field.name],
                code(flag) if flag in flags else "",
                f"{code(prefix + field.name.upper())}, {code(SHARED_PREFIX + field.name.upper())}",
            )
        )
    header = ("option", "type, unit", "default", "effect", "flag", "environment")
    return table(header, rows)


def _type(field: msgspec.structs.FieldInfo) -> str:
    described = option_type(field)
    if isinstance(described, msgspec.inspect.EnumType):
        return ", ".join(code(str(member.value)) for member in described.cls)
    if isinstance(described, msgspec.inspect.LiteralType):
        return ", ".join(code(str(value)) for value in described.values)
    if isinstance(described, msgspec.inspect.VarTupleType):
        return "list of text, separated by commas in the environment"
    words = {"StrType": "text", "IntType": "integer", "FloatType": "number", "BoolType": "boolean"}
    name = words[type(described).__name__]
    low, high = getattr(described, "ge", None), getattr(described, "le", None)
    if low is not None and high is not None:
        name += f" {low:g} to {high:g}" if isinstance(low, float) else f" {low} to {high}"
    unit = unit_of(field.name)
    return f"{name}, {unit}" if unit else name


def _default(field: msgspec.structs.FieldInfo) -> str:
    value = msgspec.to_builtins(field.default)
    return code(f"{value}") if value not in ("", []) else "empty"
