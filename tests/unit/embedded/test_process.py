"""A child ends when it is told to, when its leader ends, and when its supervisor is gone."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from app.embedded import Child, EngineError
from app.embedded.identity import Identity
from app.embedded.process import LAUNCHER

LINUX_ONLY = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a parent-death signal")
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="is about root's rights")
NOBODY = Identity(65534, 65534)

FAMILY = """
import os, signal, subprocess, sys, time
if "stubborn" in sys.argv: signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(os.getpid(), child.pid, flush=True)
if "crash" in sys.argv: os._exit(3)
time.sleep(600)
"""


async def pids(log: Path) -> list[int]:
    async with asyncio.timeout(60):
        while not log.exists() or not log.read_text().endswith("\n"):
            await asyncio.sleep(0.01)
    return [int(word) for word in log.read_text().split()]


def gone(pid: int, within: float = 60.0) -> bool:
    limit = time.monotonic() + within
    while time.monotonic() < limit:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.01)
    return False


async def test_stop_is_gentle_first(tmp_path: Path) -> None:
    child = Child.spawn([sys.executable, "-c", FAMILY], log=tmp_path / "log")
    leader, grandchild = await pids(tmp_path / "log")
    assert leader == child.pid
    assert child.returncode is None
    assert await child.stop(grace=10) == -signal.SIGTERM
    assert gone(leader)
    assert gone(grandchild)


async def test_stop_kills_the_whole_group_when_grace_ends(tmp_path: Path) -> None:
    child = Child.spawn([sys.executable, "-c", FAMILY, "stubborn"], log=tmp_path / "log")
    _, grandchild = await pids(tmp_path / "log")
    begun = time.monotonic()
    assert await child.stop(grace=0.3) == -signal.SIGKILL
    assert 0.3 <= time.monotonic() - begun < 60
    assert gone(grandchild)


async def test_nothing_outlives_a_leader_that_crashed(tmp_path: Path) -> None:
    child = Child.spawn([sys.executable, "-c", FAMILY, "crash"], log=tmp_path / "log")
    waiters = [asyncio.create_task(child.wait()) for _ in range(3)]
    assert await asyncio.wait_for(asyncio.gather(*waiters), 60) == [3, 3, 3]
    assert child.returncode == 3
    _, grandchild = await pids(tmp_path / "log")
    assert gone(grandchild)
    assert await child.stop() == 3


async def test_environment_input_and_log_reach_the_program(tmp_path: Path) -> None:
    script = "import os, sys; print(os.environ.get('A'), os.environ.get('HOME'), sys.stdin.read())"
    log = tmp_path / "log"
    log.write_text("before\n")
    child = Child.spawn([sys.executable, "-c", script], env={"A": "b"}, stdin=b"told", log=log)
    assert await child.wait() == 0
    assert log.read_text() == "before\nb None told\n"


async def test_a_waiter_that_gives_up_disturbs_nobody(tmp_path: Path) -> None:
    child = Child.spawn([sys.executable, "-c", "import time; time.sleep(600)"], log=subprocess.DEVNULL)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(child.wait(), 0.1)
    assert child.returncode is None
    assert await child.kill() == -signal.SIGKILL


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="no-such-program"):
        Child.spawn([tmp_path / "no-such-program"])


@LINUX_ONLY
async def test_a_child_goes_when_its_supervisor_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    script = (
        "import sys, time, pathlib\n"
        "from app.embedded import Child\n"
        "Child.spawn([sys.executable, '-c', sys.argv[2]], log=pathlib.Path(sys.argv[1]))\n"
        "time.sleep(600)\n"
    )
    supervisor = subprocess.Popen([sys.executable, "-c", script, log, FAMILY])
    leader, grandchild = await pids(log)
    supervisor.kill()
    supervisor.wait()
    assert gone(leader)
    os.kill(grandchild, signal.SIGKILL)  # the kernel tells the leader alone; its own children are its affair


@LINUX_ONLY
@AS_ROOT
@pytest.mark.parametrize(("private", "held"), [(False, 0), (True, 1 << 2)])
async def test_root_is_given_up_but_for_passing_private_folders(tmp_path: Path, private: bool, held: int) -> None:
    """The one right that is kept (CAP_DAC_READ_SEARCH) is kept only where it is needed."""
    log = tmp_path / "log"
    reach = [tmp_path] if private else [Path("/")]
    argv = ["/bin/cat", "/proc/self/status"]
    assert await Child.spawn(argv, identity=NOBODY, reach=reach, log=log).wait() == 0
    status = dict(line.split(":\t", 1) for line in log.read_text().splitlines() if ":\t" in line)
    assert status["Uid"].split() == ["65534"] * 4
    assert status["Gid"].split() == ["65534"] * 4
    assert status["Groups"].strip() == ""
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == held


@LINUX_ONLY
@AS_ROOT
def test_a_folder_that_cannot_be_reached_is_named_with_the_remedy(tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    (private / "data").mkdir()
    launch = [sys.executable, "-I", "-S", str(LAUNCHER), f"--parent={os.getpid()}", "--uid=65534", "--gid=65534"]
    setpriv = ["setpriv", "--bounding-set=-dac_read_search,-dac_override", "--"]
    refused = subprocess.run(
        [*setpriv, *launch, f"--reach={private / 'data'}", "--", "/bin/true"],
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert refused.returncode == 77
    assert f"user 65534, whom it runs as instead, cannot reach {private / 'data'}" in refused.stderr
    assert "start as an ordinary user" in refused.stderr
