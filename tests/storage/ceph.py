"""A Ceph object gateway (RGW) on a cluster of its own: one monitor, one OSD in memory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CONFIG = """\
[global]
fsid = {fsid}
mon host = {address}
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
keyring = {directory}/keyring
run dir = {directory}/run
log file = {directory}/log/$name.log
admin socket = {directory}/run/$name.asok
pid file = {directory}/run/$name.pid
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pgp num = 8
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
osd max object name len = 256
mon allow pool size one = true
mon data avail warn = 2
mon data avail crit = 1
[mon.a]
mon data = {directory}/mon
[osd.0]
osd data = {directory}/osd
osd objectstore = memstore
memstore device bytes = 1073741824
[client.rgw]
rgw frontends = beast endpoint=127.0.0.1:{gateway}
rgw dns name = localhost
rgw enable usage log = false
rgw enable ops log = false
"""
STEP_S = 60.0
END_S = 10.0


class Cluster:
    """Makes the parts of a cluster in a directory, one after the other."""

    def __init__(self, directory: Path, ports: tuple[int, int, int]) -> None:
        self._directory = directory
        monitor, old_monitor, gateway = ports
        self._address = f"[v2:127.0.0.1:{monitor},v1:127.0.0.1:{old_monitor}]"
        self._fsid = str(uuid.uuid4())
        for name in ("mon", "osd", "run", "log"):
            (directory / name).mkdir()
        text = CONFIG.format(
            fsid=self._fsid, address=self._address, directory=directory, gateway=gateway
        )
        (directory / "ceph.conf").write_text(text)

    def run(self, *argv: str, stdin: str = "") -> str:
        """Run one of the tools to its end."""
        done = subprocess.run(
            argv,
            cwd=self._directory,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=STEP_S,
            check=False,
        )
        assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr[-2000:]}"
        return done.stdout

    def start_monitor(self) -> None:
        """The monitor, with the keys of itself and of the administrator."""
        everything = [w for of in ("mon", "osd", "mgr") for w in ("--cap", of, "allow *")]
        key = ("ceph-authtool", "keyring", "--gen-key", "-n")
        self.run("ceph-authtool", "--create-keyring", "keyring")
        self.run(*key, "mon.", "--cap", "mon", "allow *")
        self.run(*key, "client.admin", *everything)
        new_map = ("monmaptool", "--create", "--fsid", self._fsid)
        self.run(*new_map, "--addv", "a", self._address, "monmap")
        daemon = ("ceph-mon", "-c", "ceph.conf", "-i", "a")
        self.run(*daemon, "--mkfs", "--monmap", "monmap", "--keyring", "keyring")
        self.run(*daemon)

    def start_osd(self) -> None:
        """The one OSD; waits until it is up."""
        key = self.run("ceph-authtool", "--gen-print-key").strip()
        osd_id = str(uuid.uuid4())
        self._ceph("osd", "new", osd_id, "0", "-i", "-", stdin=json.dumps({"cephx_secret": key}))
        caps = ("--cap", "mon", "allow profile osd", "--cap", "osd", "allow *")
        keyring = ("ceph-authtool", "--create-keyring", "osd/keyring", "-n", "osd.0")
        self.run(*keyring, "--add-key", key, *caps)
        daemon = ("ceph-osd", "-c", "ceph.conf", "-i", "0", "--keyring", "osd/keyring")
        self.run(*daemon, "--mkfs", "--osd-uuid", osd_id)
        self.run(*daemon)
        deadline = time.monotonic() + STEP_S
        while "1 up" not in self._ceph("osd", "stat"):
            assert time.monotonic() < deadline, "the OSD does not come up"
            time.sleep(0.1)

    def start_gateway(self) -> None:
        """The gateway, in the background; it answers some time later."""
        rights = ("mon", "allow rw", "osd", "allow rwx")
        keyring = self._ceph("auth", "get-or-create", "client.rgw", *rights)
        (self._directory / "rgw.keyring").write_text(keyring)
        self.run("radosgw", "-c", "ceph.conf", "-n", "client.rgw", "--keyring", "rgw.keyring")

    def make_user(self, access: str, secret: str) -> None:
        """A user with a key pair."""
        keys = (f"--access-key={access}", f"--secret={secret}")
        names = ("--uid=espilot", "--display-name=espilot")
        self.run("radosgw-admin", "-c", "ceph.conf", "user", "create", *names, *keys)

    def end(self) -> None:
        """End the daemons."""
        pids = [int(path.read_text()) for path in (self._directory / "run").glob("*.pid")]
        for pid in pids:
            _signal(pid, signal.SIGKILL)
        deadline = time.monotonic() + END_S
        while any(_signal(pid, 0) for pid in pids) and time.monotonic() < deadline:
            time.sleep(0.02)

    def _ceph(self, *arguments: str, stdin: str = "") -> str:
        return self.run("ceph", "-c", "ceph.conf", *arguments, stdin=stdin)


@contextmanager
def ceph_gateway(
    directory: Path, ports: tuple[int, int, int], access: str, secret: str
) -> Iterator[None]:
    """A gateway with a user; the ports are those of the monitor (two) and of the gateway."""
    cluster = Cluster(directory, ports)
    try:
        cluster.start_monitor()
        cluster.start_osd()
        cluster.start_gateway()
        cluster.make_user(access, secret)
        yield
    finally:
        cluster.end()


def _signal(pid: int, number: int) -> bool:
    """Send a signal; whether the process is there."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True
