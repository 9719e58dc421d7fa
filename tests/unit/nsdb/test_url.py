"""Which store a URL means."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest

from midonet.errors import UserError
from midonet.model.devices import Bridge
from midonet.model.ids import BridgeId
from midonet.nsdb.store import Create
from midonet.nsdb.url import open_store


@pytest.mark.parametrize(
    "url",
    [
        "",
        "sqlite",
        "sqlite:",
        "sqlite://",
        "sqlite:///",
        "sqlite:nsdb.db",
        "sqlite://host/nsdb.db",
        "redis://host",
        "/var/lib/nsdb.db",
    ],
)
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(UserError):
        open_store(url)


def test_zookeeper_is_named_in_the_refusal() -> None:
    with pytest.raises(UserError, match="sqlite and memory"):
        open_store("zk://h1:2181/midonet")


@pytest.mark.parametrize("prefix", ["sqlite://", "sqlite:///"])
async def test_a_path_names_a_file(tmp_path: Path, prefix: str) -> None:
    store = open_store(f"{prefix}{tmp_path}/nsdb.db")
    await store.open()
    await store.close()
    assert (tmp_path / "nsdb.db").is_file()


async def test_memory_stores_of_one_name_share_content() -> None:
    name = uuid4()
    stores = [open_store(url) for url in (f"memory:{name}", f"memory:{name}", f"memory:{name}x")]
    for store in stores:
        await store.open()
    blue = Bridge(id=BridgeId(uuid4()))
    await stores[0].transact([Create(blue)])
    found = [await store.get(Bridge, blue.id) is not None for store in stores]
    assert found == [True, True, False]
    for store in stores:
        await store.close()
