"""Child processes that cannot outlive their supervisor.

A `Child` leads a process group of its own, so Ctrl-C in a terminal reaches the supervisor alone, which
decides the order. It is bound to no event loop: spawn it in one and stop it from another.

Spawn from a thread that lives as long as the children should (the main thread): Linux sends the parent-death
signal when the *thread* that spawned ends. macOS has no such signal; there only `stop` ends a child.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Self

from app.embedded.errors import EngineError
from app.embedded.identity import Identity

LAUNCHER: Final = Path(__file__).with_name("launch.py")
POLL: Final = 0.02
"""Seconds between two checks if the system cannot report an exit by itself (macOS)."""


class Child:
    """One supervised process and whatever it starts in its process group."""

    def __init__(self, name: str, popen: subprocess.Popen[bytes], stop_signal: signal.Signals) -> None:
        self.name = name
        self.pid: Final = popen.pid
        self._popen = popen
        self._stop_signal = stop_signal

    @classmethod
    def spawn(
        cls,
        argv: Sequence[str | Path],
        *,
        name: str = "",
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdin: bytes = b"",
        log: Path | int | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        pdeathsig: signal.Signals | None = None,
        identity: Identity | None = None,
        reach: Sequence[Path] = (),
    ) -> Self:
        """Start a program (`argv[0]` is its path) that gets `pdeathsig` when this thread or process dies.

        Args:
            name: for messages; the program's name by default.
            env: the whole environment; this process's own by default.
            stdin: what it can read from standard input, then end of file (at most 64 KB).
            log: where output and errors go: a file to append to (made with mode 0600), an open descriptor
                such as `subprocess.DEVNULL`, or `None` for this process's own.
            stop_signal: what `stop` sends first.
            pdeathsig: `stop_signal` by default.
            identity: the user to become when this process is root.
            reach: paths that user must be able to reach.

        Raises:
            EngineError: the program cannot be run.
            OSError: `cwd` or `log` cannot be used.
        """
        program = [str(word) for word in argv]
        if not Path(program[0]).is_file():
            raise EngineError(f"{program[0]} is no program that can be run")
        launcher = [sys.executable, "-I", "-S", str(LAUNCHER), f"--parent={os.getpid()}"]
        launcher.append(f"--signal={int(pdeathsig or stop_signal)}")
        if identity is not None:
            launcher += [f"--uid={identity.uid}", f"--gid={identity.gid}", *(f"--reach={path}" for path in reach)]
        with contextlib.ExitStack() as closing:
            output = None if isinstance(log, Path) else log
            if isinstance(log, Path):
                output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
                closing.callback(os.close, output)
            popen = subprocess.Popen(  # noqa: S603 - the argv is ours, no shell
                [*launcher, "--", *program],
                env=None if env is None else dict(env),
                cwd=cwd,
                stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        if popen.stdin is not None:
            with contextlib.suppress(BrokenPipeError), popen.stdin as pipe:
                pipe.write(stdin)
        return cls(name or Path(program[0]).name, popen, stop_signal)

    @property
    def returncode(self) -> int | None:
        """Exit code, negative for a signal, `None` while it runs."""
        if self._popen.returncode is None and self._has_exited():
            self._kill_group()
            self._popen.wait()
        return self._popen.returncode

    async def wait(self) -> int:
        """Return the exit code as soon as the process has ended; any number of tasks may wait."""
        while (code := self.returncode) is None:
            await self._exit_event()
        return code

    async def stop(self, grace: float = 10.0) -> int:
        """Ask it to end, wait up to `grace` seconds, then kill its whole group. Returns the exit code."""
        if self.returncode is None:
            self.send_signal(self._stop_signal)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.wait(), grace)
        return await self.kill()

    async def kill(self) -> int:
        """Kill the whole group at once. Returns the exit code."""
        if self.returncode is None:
            self._kill_group()
        return await self.wait()

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the process itself, not to its group; nothing happens when it has ended."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def _has_exited(self) -> bool:
        # Looking without reaping keeps the process id ours until the group is dealt with.
        if not hasattr(os, "waitid"):
            return self._popen.poll() is not None
        try:
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:
            return True

    def _kill_group(self) -> None:
        # macOS answers EPERM for a group of zombies.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    async def _exit_event(self) -> None:
        try:
            watch = os.pidfd_open(self.pid)
        except (AttributeError, OSError):
            await asyncio.sleep(POLL)
            return
        loop = asyncio.get_running_loop()
        ended = loop.create_future()
        loop.add_reader(watch, ended.cancel)
        try:
            await asyncio.wait([ended])
        finally:
            loop.remove_reader(watch)
            os.close(watch)


def size(log: Path) -> int:
    """Where the next line of a log will begin."""
    try:
        return log.stat().st_size
    except FileNotFoundError:
        return 0


def tail(log: Path, start: int = 0, lines: int = 12) -> str:
    """The last lines of a log from byte `start` on, for a message."""
    try:
        with log.open("rb") as file:
            file.seek(max(start, log.stat().st_size - 8192))
            text = file.read().decode("utf-8", "replace").strip()
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])
