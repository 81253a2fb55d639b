"""What a tracker knows: who is there, which devices are free, and who waits for one."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count

MOST_OFFERS = 64
"""Match keys of one member that are to be lent; the oldest goes. A device has one, seldom two."""
MOST_ASKED = 64
"""Devices that one member may wait for."""


class TooMany(Exception):
    """A member asked for more than MOST_ASKED."""


@dataclass(eq=False)
class Member:
    """Somebody connected: a device, a host, or both. `lend((host, port, match_key))` tells it that it has a device.
    `info`: what it says of itself, {} where it is no device."""

    lend: Callable[[tuple[str, int, str]], None]
    info: dict = field(default_factory=dict)
    offers: dict[str, Offer] = field(default_factory=dict)
    """By match key, first put first."""
    asked: int = 0

    def holds(self) -> bool:
        """Whether anything is lost when it goes."""
        return bool(self.info or self.offers or self.asked)


@dataclass(frozen=True)
class Offer:
    """A device that is free: who asks for `key` is sent to host and port, with the match key."""

    member: Member
    key: str
    where: tuple[str, int, str]


class Lending:
    """Devices by key, each to whoever asked first among those of the highest priority."""

    def __init__(self):
        self._members: dict[Member, None] = {}
        self._offers: dict[str, deque[Offer]] = {}
        self._requests: dict[str, list[tuple[int, int, Member]]] = {}
        self._order = count()

    def register(self, member: Member, info: dict) -> None:
        member.info = info
        self._members[member] = None

    def offer(self, member: Member, key: str, where: tuple[str, int, str]) -> None:
        match_key = where[2]
        if match_key in member.offers:
            self._withdraw(member.offers[match_key])
        elif len(member.offers) >= MOST_OFFERS:
            self._withdraw(next(iter(member.offers.values())))
        member.offers[match_key] = offer = Offer(member, key, where)
        self._offers.setdefault(key, deque()).append(offer)
        self._match(key)

    def request(self, member: Member, key: str, priority: int) -> None:
        """`member.lend` is called as soon as there is one, maybe at once. Raises TooMany."""
        if member.asked >= MOST_ASKED:
            raise TooMany
        member.asked += 1
        heapq.heappush(self._requests.setdefault(key, []), (-priority, next(self._order), member))
        self._match(key)

    def leave(self, member: Member) -> None:
        """All that it offered and asked for."""
        self._members.pop(member, None)
        for offer in list(member.offers.values()):
            self._withdraw(offer)
        if member.asked:
            for key, requests in list(self._requests.items()):
                requests[:] = [request for request in requests if request[2] is not member]
                heapq.heapify(requests)
                self._tidy(key)

    def summary(self) -> dict:
        """As TVM's clients read it."""
        return {
            "queue_info": {
                key: {"free": len(self._offers.get(key, ())), "pending": len(self._requests.get(key, ()))}
                for key in sorted({*self._offers, *self._requests, *self._keys()})
            },
            "server_info": [member.info for member in self._members if member.info["key"].startswith("server")],
        }

    def _keys(self) -> Iterator[str]:
        """Of devices, free or busy, registered as "server:KEY"."""
        for member in self._members:
            role, _, key = member.info["key"].partition(":")
            if role == "server":
                yield key

    def _match(self, key: str) -> None:
        while self._offers.get(key) and self._requests.get(key):
            _, _, member = heapq.heappop(self._requests[key])
            member.asked -= 1
            offer = self._offers[key][0]
            self._withdraw(offer)
            member.lend(offer.where)
        self._tidy(key)

    def _withdraw(self, offer: Offer) -> None:
        del offer.member.offers[offer.where[2]]
        self._offers[offer.key].remove(offer)
        self._tidy(offer.key)

    def _tidy(self, key: str) -> None:
        """No memory of keys that nobody has or wants."""
        for table in (self._offers, self._requests):
            if key in table and not table[key]:
                del table[key]
