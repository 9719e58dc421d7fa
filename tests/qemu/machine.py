"""A virtual machine with Debian 12's stock kernel whose root is this machine's, read-only.

The checkout is mounted once more at its own path, because it may lie below /tmp or /run, which
are empty in the guest.

Software emulation: no KVM is needed, and it is slow; keep what runs inside small. The kernel
package is downloaded once into build/qemu and unpacked there, never installed.
"""

from __future__ import annotations

import gzip
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "build" / "qemu"

_BOOT_MODULES = ("virtio_pci", "9p", "9pnet_virtio")
_MODULES = (
    "veth",
    "bridge",
    "vxlan",
    "ip_gre",
    "sch_ingress",
    "cls_bpf",
    "act_bpf",
    "tun",
    "af_packet",
)

_STAGE_1 = """#!/bin/busybox sh
B=/bin/busybox
$B mount -t proc proc /proc; $B mount -t sysfs sys /sys; $B mount -t devtmpfs dev /dev
for m in $($B cat /mods/order); do $B insmod /mods/$m; done
$B mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=loose,ro root /newroot \\
  || $B poweroff -f
$B umount /proc; $B umount /sys; $B mount --move /dev /newroot/dev
exec $B switch_root /newroot {stage_2}
"""

_STAGE_2 = """#!/bin/dash
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
mount -t proc proc /proc; mount -t sysfs sys /sys
mount -t tmpfs tmpfs /run; mount -t tmpfs tmpfs /tmp
mkdir -p /dev/shm /dev/pts /run/netns {root}
mount -t tmpfs tmpfs /dev/shm; mount -t devpts devpts /dev/pts
mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=loose,ro checkout {root}
for m in {modules}; do modprobe -d {kernel} $m || echo "module $m is missing"; done
ip link set lo up
cd {root}
sh -c {command}
echo "guest exit status: $?"
sync
busybox poweroff -f
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a guest command printed, and its exit status (None: the guest did not get there)."""

    output: str
    status: int | None


def missing_tools() -> list[str]:
    """Return the programs that the virtual machine needs and this machine lacks."""
    tools = ("qemu-system-x86_64", "busybox", "cpio", "modprobe", "depmod", "dpkg-deb", "apt-get")
    return [tool for tool in tools if shutil.which(tool) is None]


def _kernel() -> Path:
    """Return the unpacked stock kernel, downloading it the first time."""
    unpacked = WORK / "kernel"
    if (unpacked / "ready").exists():
        return unpacked
    WORK.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(unpacked, ignore_errors=True)
    listed = subprocess.run(
        ["apt-cache", "depends", "linux-image-amd64"], check=True, capture_output=True, text=True
    ).stdout
    name = next(word for word in listed.split() if word.startswith("linux-image-6"))
    if not list(WORK.glob(f"{name}_*.deb")):
        subprocess.run(["apt-get", "download", "-q", name], cwd=WORK, check=True)
    package = next(WORK.glob(f"{name}_*.deb"))
    subprocess.run(["dpkg-deb", "-x", str(package), str(unpacked)], check=True)
    version = next((unpacked / "lib/modules").iterdir()).name
    subprocess.run(["depmod", "-b", str(unpacked), version], check=True)
    (unpacked / "ready").touch()
    return unpacked


def _initramfs(kernel: Path, stage_2: Path) -> Path:
    """Pack busybox and the modules that mount the root."""
    version = next((kernel / "lib/modules").iterdir()).name
    tree = WORK / "initramfs"
    shutil.rmtree(tree, ignore_errors=True)
    for name in ("bin", "dev", "proc", "sys", "newroot", "mods"):
        (tree / name).mkdir(parents=True)
    busybox = shutil.which("busybox")
    assert busybox is not None
    shutil.copy(busybox, tree / "bin/busybox")
    (tree / "bin/sh").symlink_to("busybox")
    order: list[str] = []
    for module in _BOOT_MODULES:
        needed = subprocess.run(
            ["modprobe", "-d", str(kernel), "-S", version, "--show-depends", module],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for line in needed.splitlines():
            if line.startswith("insmod "):
                path = Path(line.split()[1])
                if path.name not in order:
                    shutil.copy(path, tree / "mods" / path.name)
                    order.append(path.name)
    (tree / "mods/order").write_text("\n".join(order) + "\n")
    init = tree / "init"
    init.write_text(_STAGE_1.format(stage_2=stage_2))
    init.chmod(0o755)
    names = subprocess.run(["find", "."], cwd=tree, check=True, capture_output=True).stdout
    archive = subprocess.run(
        ["cpio", "-o", "-H", "newc", "--quiet"],
        cwd=tree,
        input=names,
        check=True,
        capture_output=True,
    ).stdout
    packed = WORK / "initramfs.gz"
    packed.write_bytes(gzip.compress(archive, 1))
    return packed


def run_in_guest(command: str, *, timeout_s: float = 600) -> Outcome:
    """Boot, run a shell command in the repository's directory, and power off."""
    kernel = _kernel()
    stage_2 = WORK / "stage_2"
    stage_2.write_text(
        _STAGE_2.format(
            modules=" ".join(_MODULES), kernel=kernel, root=ROOT, command=shlex.quote(command)
        )
    )
    stage_2.chmod(0o755)
    initramfs = _initramfs(kernel, stage_2)
    image = next((kernel / "boot").glob("vmlinuz-*"))
    arguments = [
        "qemu-system-x86_64",
        *["-nodefaults", "-no-user-config", "-nographic", "-no-reboot", "-M", "q35"],
        *["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1536"],
        *["-kernel", str(image), "-initrd", str(initramfs), "-serial", "stdio"],
        *["-append", "console=ttyS0 quiet panic=-1 reboot=t tsc=reliable"],
        *["-fsdev", "local,id=r,path=/,security_model=none,readonly=on,multidevs=remap"],
        *["-device", "virtio-9p-pci,fsdev=r,mount_tag=root"],
        *["-fsdev", f"local,id=s,path={ROOT},security_model=none,readonly=on,multidevs=remap"],
        *["-device", "virtio-9p-pci,fsdev=s,mount_tag=checkout"],
    ]
    try:
        done = subprocess.run(
            arguments,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
        output = done.stdout + done.stderr
    except subprocess.TimeoutExpired as error:
        raw = error.stdout or b""
        output = raw.decode(errors="replace") if isinstance(raw, bytes) else raw
    status = None
    for line in output.splitlines():
        if line.startswith("guest exit status: "):
            status = int(line.rpartition(" ")[2])
    return Outcome(output, status)
