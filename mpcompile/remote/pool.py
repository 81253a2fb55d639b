"""Devices of one kind that work side by side through a queue, and come and go.

Each device takes the next item as soon as it is done with one; results come to the caller's thread as they are there. A
device that is lost leaves its item to the others, and joins again when it is back; so do those that were busy, or were
switched on later. The devices are supposed to be equally fast: one on which the measurer's reference kernel is slow
is named, its numbers are kept out, and it gets no more work until it has recovered.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from mpcompile.errors import DeviceLost, TargetError, UsageError
from mpcompile.latency.same_speed import SLOWER, SLOWER_HERE, same_speed
from mpcompile.remote.pool_member import BUSY, CHECKING, IDLE, OUT, Member, Tally
from mpcompile.remote.source import DeviceSource, Scout
from mpcompile.remote.work_items import WorkQueue
from mpcompile.runtime.device import About, Device, LocalDevice

Item = TypeVar("Item")
Result = TypeVar("Result")

PATIENCE = 120.0
"""Seconds that a pool without a device that can be used waits for one."""
BUSY_SECONDS = 15.0
"""Seconds of waiting that are not worth a word: a device that was given back takes some to be free again."""
POLL = 2.0
"""Seconds between two questions whether another device is free."""
CHECK_SECONDS = 5.0
"""Seconds that work waits for the first look at a device."""
RECHECK = 5.0
"""Seconds after which a device that is kept out is looked at again."""
REFUSED = 5
"""So many measurements in a row are kept out, and for longer than the patience, before slow devices are given up."""
KEPT = "the same command, run again, goes on with all that was measured"
TRACKER = "MPCOMPILE_TRACKER"
CHECK = object()
"""The job of running the reference kernel."""


class DevicePool:
    """`devices`, and those that `source` has now or gets later.

    One device without a source does its work in the caller's thread. `slower`: by what factor the reference kernel may
    differ; `warn` is called with one line for people, in the caller's thread. With `idle`, devices of a source are
    given back when nothing was asked of the pool for so many seconds, and taken again when something is. Raises
    TargetError where there is no device to begin with.
    """

    def __init__(
        self,
        devices: Sequence[Device] = (),
        source: DeviceSource | None = None,
        *,
        slower: float = SLOWER,
        warn: Callable[[str], None] | None = None,
        idle: float | None = None,
        patience: float = PATIENCE,
        recheck: float = RECHECK,
        poll: float = POLL,
    ):
        self.source, self.slower, self.patience, self.recheck, self.poll = source, slower, patience, recheck, poll
        self.warn = warn or (lambda line: None)
        self.tallies: dict[str, Tally] = {}
        self.best = float("inf")
        """Seconds of the reference kernel: the best that was seen of a device of this kind."""
        self.last = ""
        """The device that the last result came from."""
        self._members: list[Member] = []
        self._told: set[tuple[str, str]] = set()
        """Warnings that devices gave, and were passed on."""
        self._events: SimpleQueue = SimpleQueue()
        self._run = 0
        self._scout: Scout | None = None
        self._about: About | None = None
        self._threaded = source is not None or len(devices) > 1
        self._idle, self._rest_later = idle, None
        self._lock = threading.RLock()
        for device in devices:
            self._join(device)
        self._fill()

    @staticmethod
    def local() -> DevicePool:
        """This machine."""
        return DevicePool([LocalDevice()], slower=SLOWER_HERE)

    @property
    def name(self) -> str:
        """For messages."""
        return self.source.name if self.source else ", ".join(self.tallies)

    @property
    def about(self) -> About:
        """What the devices are: the first that joined."""
        assert self._about is not None, "a pool has had a device since it was opened"
        return self._about

    @property
    def devices_at_once(self) -> int:
        """How many devices can work now; takes those that are free where it has none."""
        if not self._members:
            self._fill()
        return len(self._members)

    @property
    def elsewhere(self) -> bool:
        """Whether the devices are other machines, which this one does not disturb."""
        return not any(isinstance(m.device, LocalDevice) for m in self._members)

    def known(self, reference: float) -> float:
        """`reference`: the best seconds of the reference kernel that were recorded of a device of this kind; the best
        of that and what it takes on one of the devices now."""
        self.best = min(self.best, reference, self.run(lambda device: device.reference()))
        return self.best

    # -- working ---------------------------------------------------------------------------------------
    def run(self, work: Callable[[Device], Result]) -> Result:
        """What `work` returns, on one of the devices; on another where that one is lost or kept out."""
        found: list[Any] = []
        self.map(lambda device, _: work(device), [None], lambda _, result: found.append(result))
        if isinstance(found[-1], Exception):
            raise found[-1]
        return found[-1]

    def map(
        self,
        work: Callable[[Device, Item], Result],
        items: Sequence[Item],
        done: Callable[[Item, Result | DeviceLost], None],
    ) -> None:
        """`work` on every item, each on one device; `done` in the caller's thread as results come.

        A result with a `reference_best` (a Measurement) counts where that is the pool's best speed (see same_speed),
        else the item is worked on again; `done` may so be told of one item again, when a faster device shows that the
        first was slow. An item that devices were lost by is done with that DeviceLost. Any other exception of `work` is
        raised at once; TargetError where no device is left that can be used, and none comes back.
        """
        with self._lock:
            if self._rest_later:
                self._rest_later.cancel()
            self._map(WorkQueue(self._run + 1, work, items, done))
            if self.source and self._idle is not None:
                self._rest_later = threading.Timer(self._idle, self.rest)
                self._rest_later.daemon = True
                self._rest_later.start()

    def _map(self, queue: WorkQueue) -> None:
        self._run = queue.number
        self._fill()
        for member in self._members:
            if not self._threaded:
                member.state = IDLE  # an interrupt may have left it in the middle of something
        if self.source:
            self._scout = self._scout or Scout(self.source, self._events, self.poll)
            self._scout.wanted.set()
        try:
            while not queue.finished:
                self._give(queue)
                self._check_patience(queue)
                self._hear(queue)
        finally:
            if self._scout:
                self._scout.wanted.clear()

    def _give(self, queue: WorkQueue) -> None:
        """Work for whoever has none; at first only when all have been looked at, or take long for it."""
        now = time.monotonic()
        if now - queue.began < CHECK_SECONDS and any(m.state == CHECKING and not m.until for m in self._members):
            return
        for member in list(self._members):
            if member.state == OUT and now >= member.until:
                self._check(member)
            if member.state == IDLE and queue.todo:
                at = queue.todo.popleft()
                member.state = BUSY
                member.give((queue.number, at), lambda device, item=queue.items[at]: queue.work(device, item))

    def _hear(self, queue: WorkQueue) -> None:
        """The next thing that happened; returns after a while where nothing does."""
        try:
            member, job, outcome = self._events.get(timeout=min(0.2, self.recheck))
        except Empty:
            return
        if member is None:
            self._join(outcome)
            return
        if member not in self._members:
            return  # given back while it was still looked at
        at = job[1] if job is not CHECK and job[0] == queue.number else None
        member.state = IDLE
        if isinstance(outcome, DeviceLost):
            self._lost(member, outcome)
            queue.lost = outcome
            if at is not None:
                queue.died(at, outcome)
        elif isinstance(outcome, BaseException):
            if at is not None:
                raise outcome
            if job is CHECK:
                self._leave(member)
                self.warn(f"{member.name} is left out: {outcome}")
        else:
            reference = outcome if job is CHECK else getattr(outcome, "reference_best", None)
            good = reference is None or self._judge(member, reference, queue)
            for warning in getattr(outcome, "warnings", ()):
                if (member.name, warning) not in self._told:
                    self._told.add((member.name, warning))
                    self.warn(f"{member.name}: {warning}")
            if at is not None and good:
                self.last = member.name
                queue.tell(at, member, outcome)
            elif at is not None:
                queue.refuse(at)

    # -- devices that are slow ---------------------------------------------------------------------------
    def _check(self, member: Member) -> None:
        member.state, member.reference = CHECKING, 0.0
        member.give(CHECK, lambda device: device.reference())

    def _judge(self, member: Member, reference: float, queue: WorkQueue) -> bool:
        """Whether a device's numbers count that were taken beside such a reference; those of others, too."""
        member.reference = reference
        self.best = min(self.best, reference)
        for other in self._members:
            if other.reference and other.state != OUT and not same_speed(other.reference, self.best, self.slower):
                self._keep_out(other)
                queue.again(other)
        if member.state != OUT:
            member.until = 0.0
        return member.state != OUT

    def _keep_out(self, member: Member) -> None:
        ratio = member.reference / self.best
        first = not member.until
        member.state, member.until = OUT, time.monotonic() + self.recheck
        member.tally.kept_out += first
        member.tally.ratio = max(member.tally.ratio, ratio)
        if first:
            than = "the others" if len(self._members) > 1 else "it did before"
            self.warn(
                f"{member.name} is {ratio:.1f} times slower than {than}, by the reference kernel: its numbers "
                "are kept out"
            )

    # -- devices that come and go ------------------------------------------------------------------------
    def _fill(self) -> None:
        """Takes all that are free. Raises TargetError where there is none after all the patience."""
        began, told = time.monotonic(), False
        while self.source:
            self._join_late()
            try:
                while device := self.source.take():
                    self._join(device)
            except TargetError:
                if not self._members:
                    raise
            if self._members:
                return
            if time.monotonic() - began > self.patience:
                raise TargetError(f"{self.source.name}: no device was free within {self.patience:.0f} s")
            if not told and time.monotonic() - began > BUSY_SECONDS:
                self.warn(f"{self.source.name}: all devices are busy; waiting for one")
                told = True
            time.sleep(min(self.poll, 1.0))

    def _join_late(self) -> None:
        """Joins devices that the scout took when nothing was asked any more; other events stay."""
        for _ in range(self._events.qsize()):
            event = self._events.get()
            if event[0] is None:
                self._join(event[2])
            else:
                self._events.put(event)

    def _join(self, device: Device) -> None:
        mine = self._about = self._about or device.about
        theirs = device.about
        if mine.hardware != theirs.hardware:
            self.warn(
                f"{device.name} is left out: it is {theirs.hardware}, the others are {mine.hardware}; give it a key of "
                "its own"
            )
            device.close()
            return
        tally = self.tallies.setdefault(device.name, Tally())
        member = Member(device, tally, lambda *event: self._events.put(event), self._threaded)
        self._members.append(member)
        if self._threaded:
            self._check(member)

    def _lost(self, member: Member, error: DeviceLost) -> None:
        member.tally.lost += 1
        self._leave(member)
        left = f"; {len(self._members)} of {len(self.tallies)} devices go on" if self._members else ""
        self.warn(f"{error}{left}")

    def _leave(self, member: Member) -> None:
        if member in self._members:
            self._members.remove(member)
        member.leave()

    def _check_patience(self, queue: WorkQueue) -> None:
        """Raises TargetError where nothing can be used, and nothing came back for too long."""
        now = time.monotonic()
        if any(m.state != OUT and (m.state != CHECKING or not m.until) for m in self._members):
            queue.usable_at = now
        over = now - queue.usable_at > self.patience
        if not self._members and not self.source:
            raise TargetError(f"{queue.lost or self.name}; no device is left: {KEPT}")
        if over and not self._members:
            raise TargetError(f"{queue.lost or self.name}; no device came back within {self.patience:.0f} s: {KEPT}")
        if over or (queue.refused >= REFUSED and now - queue.good_since > self.patience):
            slow = max(self._members, key=lambda m: m.tally.ratio)
            raise TargetError(
                f"{slow.name} stays {slow.tally.ratio:.1f} times slower than it was, or than others, by "
                f"the reference kernel (hot, throttled, or busy?): {KEPT}"
            )

    def rest(self) -> None:
        """Gives the devices back, as long as nothing is to be done; the next map takes those that are free then."""
        with self._lock:
            for member in list(self._members) if self.source else ():
                self._leave(member)
            self._give_back_late()

    def _give_back_late(self) -> None:
        """Devices that came when nobody wanted them any more."""
        while self.source and not self._events.empty():
            member, _, outcome = self._events.get()
            if member is None:
                outcome.close()

    def close(self) -> None:
        """Gives all devices back; what they are doing is broken off."""
        if self._rest_later:
            self._rest_later.cancel()
        if self._scout:
            self._scout.stop()
        for member in list(self._members):
            self._leave(member)
        self._give_back_late()

    def __enter__(self) -> DevicePool:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def summary(self) -> list[str]:
        """A line for each device that took part."""
        return [f"{name}: {tally.words()}" for name, tally in self.tallies.items()]


def open_pool(
    tracker: str | None = None,
    key: str | None = None,
    *,
    warn: Callable[[str], None] | None = None,
    idle: float | None = None,
) -> DevicePool:
    """This machine, or where a key is given the devices of `key` that `tracker` ("HOST:PORT", or what MPCOMPILE_TRACKER
    says) has. `idle`: see DevicePool.

    Raises UsageError at one without the other, TargetError where there is no such tracker or device.
    """
    if key is None and tracker is None:
        return DevicePool.local()
    found = tracker or os.environ.get(TRACKER, "")
    if key is None:
        raise UsageError(f"--tracker {tracker} says where devices are, and --key which: name a key, too")
    if not found:
        raise UsageError(
            f"--key {key} says which devices, and --tracker HOST:PORT, or {TRACKER} in the environment, "
            "where they are: name a tracker, too"
        )
    from mpcompile.remote.tracker import Key

    return DevicePool(source=Key(found, key), warn=warn, idle=idle)
