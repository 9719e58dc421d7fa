"""Control node and agents as processes, on one machine."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx

from midonet.demo.processes import free_port

DEADLINE_S = 60.0


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    """Return the first true result of a condition."""
    deadline_s = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline_s:
        result = condition()
        if result:
            return result
        time.sleep(0.05)
    raise AssertionError(f"{what}: not within {DEADLINE_S} s")


class Processes:
    """Commands started on one store, all stopped at the end."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.nsdb = f"sqlite://{directory}/nsdb.db"
        self.api_port = free_port(socket.SOCK_STREAM)
        self.underlay_port = free_port(socket.SOCK_DGRAM)
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.api = httpx.Client(base_url=f"http://127.0.0.1:{self.api_port}/midonet-api")

    def start(
        self, name: str, *arguments: str, inside: Sequence[str] = ()
    ) -> subprocess.Popen[bytes]:
        """Start a command; `inside` is put in front of it."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("MIDONET_")}
        with (self.directory / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [*inside, sys.executable, "-m", "midonet.commands.main", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
            )
        self.running[name] = process
        return process

    def start_cluster(self) -> None:
        self.start(
            "cluster", "cluster", "--nsdb", self.nsdb, "--listen", f"127.0.0.1:{self.api_port}"
        )
        wait_for(self._api_answers, "the API answers")

    def start_agent(
        self, name: str, *, datapath: str = "memory", inside: Sequence[str] = ()
    ) -> None:
        """Start an agent and wait until it answers."""
        self.start(name, *self.agent_arguments(name, datapath), inside=inside)
        wait_for(lambda: self.state(name), f"agent {name} answers")

    def agent_arguments(self, name: str, datapath: str = "memory") -> tuple[str, ...]:
        return (
            "agent", "--nsdb", self.nsdb, "--host-name", name, "--datapath", datapath,
            "--state-dir", str(self.directory / name), "--underlay-port", str(self.underlay_port),
        )  # fmt: skip

    def state(self, name: str) -> Any:
        status, text = self.command("state", "--json", "--state-dir", str(self.directory / name))
        return json.loads(text) if status == 0 else None

    def command(self, *arguments: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "midonet.commands.main", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=DEADLINE_S,
        )
        return done.returncode, done.stdout.decode()

    def stop(self, name: str) -> int:
        process = self.running.pop(name)
        process.send_signal(signal.SIGTERM)
        return process.wait(DEADLINE_S)

    def close(self) -> None:
        self.api.close()
        for process in self.running.values():
            process.kill()
            process.wait()

    def post(self, path: str, body: dict[str, Any], media: str) -> str:
        headers = {"Content-Type": f"application/vnd.org.midonet.{media}+json"}
        response = self.api.post(path, json=body, headers=headers)
        assert response.status_code == 201, response.text
        return response.headers["Location"].rpartition("/")[2]

    def tunnel_zone(self, addresses: dict[str, str]) -> None:
        """Make a zone of hosts: their underlay addresses by host id."""
        zone = self.post("/tunnel_zones", {"name": "z", "type": "vxlan"}, "TunnelZone-v1")
        for host_id, address in addresses.items():
            body = {"hostId": host_id, "ipAddress": address}
            self.post(f"/tunnel_zones/{zone}/hosts", body, "TunnelZoneHost-v1")

    def bridge_ports(self, count: int) -> list[str]:
        """Make a bridge with some ports; return the ports' ids."""
        bridge = self.post("/bridges", {"name": "b", "tenantId": "t"}, "Bridge-v4")
        return [
            self.post(f"/bridges/{bridge}/ports", {"type": "Bridge"}, "Port-v3")
            for _ in range(count)
        ]

    def bind(self, host_id: str, port_id: str, interface_name: str) -> None:
        """Bind a port through the API."""
        body = {"portId": port_id, "interfaceName": interface_name}
        self.post(f"/hosts/{host_id}/ports", body, "HostInterfacePort-v1")

    def active_ports(self, name: str) -> set[str]:
        """Return the ports that an agent says are active."""
        return {port["id"] for port in self.state(name)["ports"] if port["active"]}

    def _api_answers(self) -> bool:
        try:
            return self.api.get("/").status_code == 200
        except httpx.HTTPError:
            return False
