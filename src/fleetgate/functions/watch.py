"""What a process of a function takes with all it started: memory, processes, time, disk.

Theory of operation. The kernel's limits hold for one process each. The launcher looks at all of
them together: ten times a second while an event is worked on, ever more seldom while nothing
happens. It reads ``/proc`` (proc_pid_stat(5), proc_pid_status(5)): first what is cheap and counts
shared pages more than once, and only when that is too much what is exact (smaps_rollup). A look
that takes long is followed by a pause ten times as long. Between two looks the kernel's own limits
of each process are all there is.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import stat
import time
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

BUSY_SECONDS: Final = 0.1
"""Between two looks while an event is worked on; more when looking takes long."""

REST_SECONDS: Final = 0.25
"""For the first look after an answer; while nothing happens it doubles up to `IDLE_SECONDS`."""

IDLE_SECONDS: Final = 4.0

REST_CPU_SECONDS: Final = 1.0
"""Of processor time between an answer and the next event, where nothing ought to run."""

MAX_FILES: Final = 65_536
MAX_DEPTH: Final = 100
"""Of directories within one another."""

_ENOUGH = 10  # looks after which others' processes are looked at anew: numbers are used again
_PART = 10  # at most one part of so many of the time is for looking
_DISK_SECONDS = 0.5
_KCMP = {"x86_64": 312, "aarch64": 272}
_KCMP_VM = 1
_libc = ctypes.CDLL(None, use_errno=True)


class Limits(NamedTuple):
    """What there may be of everything together; None for as much as there is."""

    memory: int
    """Bytes."""
    processes: int
    """Threads included."""
    rest_cpu_seconds: float | None = None
    directory: str | None = None
    """Whose files are counted; their bytes are `disk`."""
    disk: int = 0


class _Seen(NamedTuple):
    parent: int
    threads: int
    ticks: int
    """Of processor time, with that of children that were waited for."""


class Watch:
    """Looks at what is below `keeper`, itself left out. `peak` is the most memory seen, in KB."""

    def __init__(self, keeper: int, limits: Limits, now: float) -> None:
        self.peak = 0
        self._keeper = keeper
        self._limits = limits
        self._foreign: set[str] = set()
        self._looks = 0
        self._resting = False
        self._rested_at: int | None = None  # in ticks, at the first look
        self._ticks = 0
        self._pause = BUSY_SECONDS
        self._next = now + BUSY_SECONDS
        self._next_disk = now

    def work(self, now: float) -> None:
        """An event begins."""
        if self._resting:
            self._resting = False
            self._pause = BUSY_SECONDS
            self._next = min(self._next, now + BUSY_SECONDS)

    def rest(self, now: float) -> None:
        """An event was answered."""
        if not self._resting:
            self._resting = True
            self._rested_at = None
            self._pause = REST_SECONDS
            # who is asked again and again is looked at all the same
            self._next = min(self._next, now + REST_SECONDS)

    def patience(self, now: float) -> float:
        """Seconds until the next look."""
        return max(0.0, self._next - now)

    def look(self, now: float) -> str:
        """Looks, if it is time to; returns why everything is to be ended, or nothing."""
        if now < self._next:
            return ""
        began = time.monotonic()
        why = self._look(now)
        took = time.monotonic() - began
        self._next = now + max(self._pause, took * _PART)
        return why

    def _look(self, now: float) -> str:
        limits = self._limits
        processes = self._processes()
        keeper = processes.pop(self._keeper, None)
        before = self._ticks
        self._ticks = sum(each.ticks for each in processes.values())
        self._ticks += keeper.ticks if keeper is not None else 0
        count = sum(each.threads for each in processes.values())
        if count > limits.processes:
            return f"{count} processes and threads; the limit is {limits.processes}"
        used = sum(_resident(pid) for pid in processes)
        if used > limits.memory:
            used = _proportional(list(processes))
        self.peak = max(self.peak, used >> 10)
        if used > limits.memory:
            return f"{used >> 20} MB of memory; the limit is {limits.memory >> 20}"
        if limits.directory is not None and now >= self._next_disk:
            self._next_disk = now + _DISK_SECONDS
            if why := _too_much(limits.directory, limits.disk):
                return why
        return self._rest_over(busy=self._ticks != before) if self._resting else ""

    def _rest_over(self, *, busy: bool) -> str:
        if self._rested_at is None:
            self._rested_at = self._ticks
        elif busy:
            self._pause = REST_SECONDS
        else:
            self._pause = min(self._pause * 2, IDLE_SECONDS)
        took = (self._ticks - self._rested_at) / os.sysconf("SC_CLK_TCK")
        most = self._limits.rest_cpu_seconds
        if most is not None and took > most:
            return f"{took:.1f} s of processor time between events; the limit is {most:g}"
        return ""

    def _processes(self) -> dict[int, _Seen]:
        """The keeper and everything below it, by number."""
        self._looks += 1
        if self._looks % _ENOUGH == 0:
            self._foreign.clear()
        names = {name for name in os.listdir("/proc") if name.isdigit()}  # noqa: PTH208
        self._foreign &= names
        seen: dict[int, _Seen] = {}
        for name in names - self._foreign:
            # pid (command) state parent ...: a command may hold anything
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123
                words = file.read().rpartition(b")")[2].split()
                ticks = sum(map(int, words[11:15]))
                seen[int(name)] = _Seen(int(words[1]), int(words[17]), ticks)
        ours: dict[int, bool | None] = {self._keeper: True}
        for start in seen:
            pid, way = start, []
            while pid in seen and pid not in ours:
                way.append(pid)
                pid = seen[pid].parent
            # below one that ended this moment: nobody's until the next look, it may be ours
            is_ours = ours.get(pid, False if not pid or str(pid) in self._foreign else None)
            ours.update(dict.fromkeys(way, is_ours))
            if is_ours is False:
                self._foreign.update(map(str, way))
        return {pid: each for pid, each in seen.items() if ours.get(pid)}


def _resident(pid: int) -> int:
    """Bytes of memory that are a process's own or shared, but those of files; also swapped ones."""
    total = 0
    with contextlib.suppress(OSError), open(f"/proc/{pid}/status", "rb") as file:  # noqa: PTH123
        for line in file:
            if line.startswith((b"RssAnon:", b"RssShmem:", b"VmSwap:")):
                total += int(line.split()[1]) << 10
    return total


def _proportional(pids: list[int]) -> int:
    """The same of many, each page counted once."""
    total = 0
    counted: dict[str, list[int]] = {}
    for pid in pids:
        try:
            with open(f"/proc/{pid}/statm") as file:  # noqa: PTH123
                size = file.read()
            # a child between vfork() and exec() is its parent: its memory is the same
            alike = counted.setdefault(size, [])
            if any(_same_memory(pid, other) for other in alike):
                continue
            alike.append(pid)
            total += _rollup(pid)
        except OSError:
            total += _resident(pid)
    return total


def _rollup(pid: int) -> int:
    total = 0
    with open(f"/proc/{pid}/smaps_rollup", "rb") as file:  # noqa: PTH123
        for line in file:
            if line.startswith((b"Pss_Anon:", b"Pss_Shmem:", b"SwapPss:")):
                total += int(line.split()[1]) << 10
    return total


def _same_memory(pid: int, other: int) -> bool:
    """Source: kcmp(2)."""
    number = _KCMP.get(os.uname().machine)
    return number is not None and _libc.syscall(number, pid, other, _KCMP_VM, 0, 0) == 0


def _too_much(directory: str, most: int) -> str:
    """Why there is too much in a directory, if there is."""
    count = size = 0
    seen: set[int] = set()
    levels: list[int] = []
    try:
        levels.append(os.open(directory, os.O_RDONLY | os.O_DIRECTORY))
        waiting: list[list[str]] = [_subdirectories(levels[-1])]
        while levels:
            inside = levels[-1]
            if waiting[-1]:
                if len(levels) > MAX_DEPTH:
                    return f"directories within one another; the limit is {MAX_DEPTH}"
                with contextlib.suppress(OSError):
                    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
                    levels.append(os.open(waiting[-1].pop(), flags, dir_fd=inside))
                    waiting.append(_subdirectories(levels[-1]))
                continue
            with os.scandir(inside) as entries:
                for entry in entries:
                    count += 1
                    if count > MAX_FILES:
                        return f"files in TMPDIR; the limit is {MAX_FILES}"
                    with contextlib.suppress(OSError):
                        found = entry.stat(follow_symlinks=False)
                        if stat.S_ISREG(found.st_mode) and found.st_ino not in seen:
                            seen.add(found.st_ino)
                            size += found.st_blocks * 512
            os.close(levels.pop())
            waiting.pop()
    except OSError:
        pass  # it is being changed: next time
    finally:
        for level in levels:
            os.close(level)
    return f"{size >> 20} MB in TMPDIR; the limit is {most >> 20}" if size > most else ""


def _subdirectories(directory: int) -> list[str]:
    with os.scandir(directory) as entries:
        return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]


def limits(plan: Mapping[str, Any], *, sealed: bool) -> Limits:
    """The limits of a plan. A sealed one's temporary directory has a size of its own."""
    whole = plan["confinement"]["whole"]
    return Limits(
        plan["memory"],
        plan["processes"],
        None if whole else REST_CPU_SECONDS,
        None if whole or sealed else plan["remove"],
        plan["disk"],
    )
