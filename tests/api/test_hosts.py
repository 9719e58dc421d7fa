"""Hosts, tunnel zones and the tables of bridges."""

from __future__ import annotations

from uuid import uuid4

import pytest

from midonet.nsdb.store import PutState, StateTables
from tests.api.conftest import Api

TUNABLES = {
    "floodingProxyWeight": 5,
    "containerWeight": 6,
    "containerLimit": 7,
    "enforceContainerLimit": True,
}


async def test_host_shows_what_its_agent_reports_while_it_is_alive(api: Api) -> None:
    host_id = await api.host("compute1")
    shown = await api.get(f"/hosts/{host_id}")
    assert (shown["name"], shown["alive"], shown["addresses"]) == ("compute1", False, [])
    await api.start_agent(host_id)
    shown = await api.get(f"/hosts/{host_id}")
    assert shown["alive"] is True
    assert shown["addresses"] == ["192.0.2.1", "2001:db8::1"]
    interface = shown["hostInterfaces"][0]
    assert (interface["name"], interface["mtu"], interface["status"]) == ("eth0", 1500, 3)
    assert await api.get(shown["interfaces"]) == [interface]
    assert await api.get(interface["uri"]) == interface
    await api.refused(404, "GET", f"/hosts/{host_id}/interfaces/eth9")


@pytest.mark.parametrize("store", ["memory"], indirect=True)
async def test_malformed_state_of_a_host_hides_no_other(api: Api) -> None:
    broken, sound = await api.host("broken"), await api.host("sound")
    for host_id in (broken, sound):
        await api.start_agent(host_id)
    bad = PutState(StateTables.host_state(), str(broken), '{"id": 7', broken)
    await api.store.transact([bad])
    shown = {host["name"]: len(host["hostInterfaces"]) for host in await api.get("/hosts")}
    assert shown == {"broken": 0, "sound": 1}


async def test_put_of_a_host_takes_the_four_tunables_and_needs_all(api: Api) -> None:
    host_id = await api.host("h")
    replaced = await api.http.put(f"/hosts/{host_id}", json=TUNABLES | {"name": "other"})
    assert replaced.status_code == 200
    shown = await api.get(f"/hosts/{host_id}")
    assert shown["name"] == "h"
    assert {name: shown[name] for name in TUNABLES} == TUNABLES
    for name in TUNABLES:
        await api.refused(400, "PUT", f"/hosts/{host_id}", **TUNABLES | {name: None})
    await api.refused(400, "PUT", f"/hosts/{host_id}", **TUNABLES | {"containerLimit": -2})


async def test_host_goes_only_when_it_is_dead_and_free(api: Api) -> None:
    alive, bound, free = [await api.host(name) for name in ("alive", "bound", "free")]
    await api.start_agent(alive)
    bridge = await api.create("/bridges")
    port = await api.create(bridge["ports"], type="Bridge")
    binding = {"portId": port["id"], "interfaceName": "tap0"}
    await api.create(f"/hosts/{bound}/ports", **binding)
    for host_id in (alive, bound):
        await api.refused(403, "DELETE", f"/hosts/{host_id}")
    assert (await api.http.delete(f"/hosts/{free}")).status_code == 200
    await api.refused(404, "DELETE", f"/hosts/{free}")
    for zone in await api.get("/tunnel_zones"):
        members = await api.get(zone["hosts"])
        assert str(free) not in {member["hostId"] for member in members}


async def test_tunnel_zone_names_are_unique(api: Api) -> None:
    zone = await api.create("/tunnel_zones", name="z", type="gre")
    other = await api.create("/tunnel_zones", name="y", type="vtep")
    await api.refused(409, "POST", "/tunnel_zones", name="z", type="gre")
    await api.refused(409, "PUT", other["uri"], name="z", type="gre")
    assert (await api.http.put(zone["uri"], json=zone | {"type": "vxlan"})).status_code == 204
    await api.refused(400, "POST", "/tunnel_zones", name="", type="gre")
    await api.refused(400, "POST", "/tunnel_zones", name="n", type="GRE")


async def test_host_joins_a_zone_once_with_either_media_type(api: Api) -> None:
    zone = await api.create("/tunnel_zones", name="z", type="gre")
    host_id = await api.host(in_zone=False)
    kind = "application/vnd.org.midonet.GreTunnelZoneHost-v1+json"
    member = f'{{"hostId": "{host_id}", "ipAddress": "192.0.2.9"}}'
    created = await api.http.post(zone["hosts"], content=member, headers={"Content-Type": kind})
    assert created.status_code == 201
    read = await api.http.get(created.headers["location"], headers={"Accept": kind})
    assert read.json()["ipAddress"] == "192.0.2.9"
    body = {"hostId": str(host_id), "ipAddress": "192.0.2.9"}
    await api.refused(409, "POST", zone["hosts"], **body)
    await api.refused(400, "POST", zone["hosts"], **body | {"hostId": str(uuid4())})
    await api.refused(400, "POST", zone["hosts"], **body | {"ipAddress": "nonsense"})
    assert (await api.http.delete(created.headers["location"])).status_code == 204
    await api.refused(404, "DELETE", created.headers["location"])


async def test_mac_table_per_vlan(api: Api) -> None:
    bridge = await api.create("/bridges")
    trunk = await api.create(bridge["ports"], type="Bridge")
    tagged = await api.create(bridge["ports"], type="Bridge", vlanId=5)
    mac = "02:00:00:00:00:01"
    vlan_table = bridge["vlanMacTableTemplate"].replace("{vlanId}", "9")
    await api.refused(404, "GET", vlan_table)
    entry = await api.create(vlan_table, macAddr=mac.upper(), portId=trunk["id"])
    assert (entry["macAddr"], entry["vlanId"]) == (mac, 9)
    assert entry["uri"].endswith(f"/vlans/9/mac_table/02-00-00-00-00-01_{trunk['id']}")
    await api.create(bridge["macTable"], macAddr=mac, portId=trunk["id"])
    assert [each["vlanId"] for each in await api.get(bridge["macTable"])] == [0, 9]
    await api.refused(400, "POST", bridge["macTable"], macAddr=mac, portId=tagged["id"])
    await api.refused(400, "POST", bridge["macTable"], macAddr=mac, portId=str(uuid4()))
    await api.refused(400, "POST", bridge["macTable"], macAddr="2:0", portId=trunk["id"])
    await api.refused(404, "GET", bridge["vlanMacTableTemplate"].replace("{vlanId}", "x"))
    for _ in range(2):
        assert (await api.http.delete(entry["uri"])).status_code == 204
    await api.refused(404, "GET", entry["uri"])
    await api.refused(404, "DELETE", entry["uri"].replace("/9/", "/10/"))


async def test_deleting_a_bridge_forgets_its_tables(api: Api) -> None:
    bridge_id = str(uuid4())
    bridge = await api.create("/bridges", id=bridge_id)
    port = await api.create(bridge["ports"], type="Bridge")
    await api.create(bridge["macTable"], macAddr="02:00:00:00:00:01", portId=port["id"], vlanId=3)
    await api.create(bridge["arpTable"], ip="10.0.0.1", mac="02:00:00:00:00:01")
    assert (await api.http.delete(bridge["uri"])).status_code == 204
    again = await api.create("/bridges", id=bridge_id)
    assert await api.get(again["macTable"]) == []
    assert await api.get(again["arpTable"]) == []


@pytest.mark.parametrize("ip", ["10.0.0.1", "2001:db8::1"])
async def test_arp_table_takes_both_ip_versions(api: Api, ip: str) -> None:
    bridge = await api.create("/bridges")
    entry = await api.create(bridge["arpTable"], ip=ip, mac="02:00:00:00:00:01")
    assert (entry["ip"], entry["mac"]) == (ip, "02:00:00:00:00:01")
    assert await api.get(bridge["arpTable"]) == [entry]
    assert (await api.http.delete(entry["uri"])).status_code == 204
    assert await api.get(bridge["arpTable"]) == []


@pytest.mark.parametrize("store", ["memory"], indirect=True)
async def test_tenants_come_from_the_authentication_provider(api: Api) -> None:
    assert [tenant["id"] for tenant in await api.get("/tenants")] == ["admin"]
    assert await api.get("/tenants?marker=admin") == []
    tenant = await api.get("/tenants/a%20b")
    assert tenant["bridges"].endswith("/bridges?tenant_id=a%20b")
    assert (await api.http.post("/tenants", json={})).status_code == 405
