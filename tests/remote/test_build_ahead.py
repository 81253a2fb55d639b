"""What is built for devices: once, and ahead of them; on this machine only when it is wanted."""

from mpcompile.errors import DeviceLost
from mpcompile.remote.build_ahead import map_built
from mpcompile.remote.pool import DevicePool
from tests.patience import until
from tests.remote.simulated import Formula, Shelf

QUICK = {"recheck": 0.05, "poll": 0.02}


def test_the_next_item_is_built_while_a_device_is_at_work():
    built, told, last = [], {}, 9

    def build(item):
        built.append(item)
        return 10 * item

    def work(device, item, made):
        until(lambda: item == last or item + 1 in built)
        return made

    with DevicePool([Formula("a")], **QUICK) as pool:
        map_built(pool, build, work, range(last + 1), told.__setitem__)
    assert told == {item: 10 * item for item in range(last + 1)}
    assert built == list(range(last + 1))


def test_no_more_is_built_ahead_than_devices_will_want_next():
    built, most = [], []

    def work(device, item, made):
        until(lambda: len(built) >= min(item + 2, 20))  # as much as may be, and then what should not
        most.append(len(built) - item)

    with DevicePool([Formula("a")], **QUICK) as pool:
        map_built(pool, built.append, work, range(20), lambda *_: None)
    assert max(most) == 2


def test_what_a_lost_device_was_working_on_is_not_built_again():
    built, told = [], {}

    def work(device, item, made):
        if device.name == "a":
            shelf.put(Formula("b"))
            raise DeviceLost("a was lost")
        return item

    shelf = Shelf(Formula("a"))
    with DevicePool(source=shelf, **QUICK) as pool:
        map_built(pool, built.append, work, range(4), told.__setitem__)
    assert told == {item: item for item in range(4)} and sorted(built) == list(range(4))


def test_on_this_machine_nothing_is_built_while_something_is_measured():
    order = []
    with DevicePool.local() as pool:
        map_built(
            pool,
            lambda item: order.append(("built", item)),
            lambda device, item, _: order.append(("done", item)),
            range(3),
            lambda *_: None,
        )
    assert order == [(what, item) for item in range(3) for what in ("built", "done")]
