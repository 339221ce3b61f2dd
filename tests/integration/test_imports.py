"""Every module can be imported alone, and the payload SDK needs next to nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EACH_ALONE = """
import importlib, pathlib, sys, traceback
for path in sorted(pathlib.Path("espilot").rglob("*.py")):
    name = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
    for known in [n for n in sys.modules if n.partition(".")[0] == "espilot"]:
        del sys.modules[known]
    try:
        importlib.import_module(name)
    except Exception as error:
        print(name, type(error).__name__, error)
"""
SDK_ALONE = """
import importlib.abc, sys
FOREIGN = set(sys.argv[1].split(","))
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in FOREIGN:
            raise ImportError(f"{name} is not there")
sys.meta_path.insert(0, Refuse())
import espilot.payload, espilot.payload.exec_runner, espilot.payload.pool
import espilot.payload.fake.main
"""


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter in the checkout."""
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_every_module_alone() -> None:
    """No module needs another to be imported first."""
    done = run(EACH_ALONE)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_sdk_needs_zmq_and_msgpack_only() -> None:
    """A payload can ship the SDK with pyzmq and msgpack alone."""
    done = run(SDK_ALONE, "lmdb,psutil,requests,urllib3,aiohttp,boto3,botocore,numpy,uproot")
    assert done.returncode == 0, done.stderr
    assert run(SDK_ALONE, "msgpack").returncode != 0, "the test can fail"
