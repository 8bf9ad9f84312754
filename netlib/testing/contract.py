"""What netlib's core relies on in every driver, as tests."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from ipaddress import ip_network

import pytest

from netlib import names
from netlib.codec import from_json, to_json
from netlib.driver import Capabilities, Driver, Option
from netlib.errors import Conflict, InvalidOption, KernelError, NetError, NetWarning, Unsupported
from netlib.kernel.fake import FakeKernel
from netlib.model import Network, Sandbox
from netlib.net import Net
from netlib.registry import Registry
from netlib.store.memory import MemoryStore
from netlib.values import replace
from netlib.wiring import Address, Link, Route, Wiring

NAME = "mine"


class DriverContract:
    """Derive a class called `Test...` from this one and give it the fixture `driver`.

    Override `network_options`, `endpoint_options` or `kernel` where your driver needs more
    than a host with one uplink, eth0.
    """

    @pytest.fixture
    def driver(self) -> Driver:
        """Your driver."""
        raise NotImplementedError("give your test class a fixture `driver`")

    @pytest.fixture
    def network_options(self) -> Mapping[str, str]:
        """Options of the networks that the tests make."""
        return {}

    @pytest.fixture
    def endpoint_options(self) -> Mapping[str, str]:
        """Options of their endpoints."""
        return {}

    @pytest.fixture
    def kernel(self) -> FakeKernel:
        """The host."""
        return FakeKernel()

    @pytest.fixture
    def net(self, driver: Driver, kernel: FakeKernel) -> Iterator[Net]:
        """The library on that host, knowing your driver by the name `mine`."""
        registry = Registry({NAME: driver})
        with Net(store=MemoryStore(), kernel=kernel, registry=registry) as net:
            yield net

    @pytest.fixture
    def network(self, net: Net, network_options: Mapping[str, str]) -> Network:
        """A network of yours."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NetWarning)  # nobody has to be on a LAN of the fake's
            return net.create("front", driver=NAME, options=network_options)

    @pytest.fixture
    def boxes(self, net: Net, driver: Driver) -> tuple[Sandbox, Sandbox]:
        """Two sandboxes; both are the host itself where your driver wants that."""
        if driver.capabilities.own_netns:
            return net.create_sandbox("web"), net.create_sandbox("db")
        host = net.engine.kernel.enter("", "host")
        return net.register_sandbox("web", host), net.register_sandbox("db", host)

    # -- what is declared -------------------------------------------------------------------------

    def test_capabilities_are_declared(self, driver: Driver) -> None:
        """The core asks them instead of a driver's name."""
        assert isinstance(driver.capabilities, Capabilities)
        assert driver.capabilities.publishes or driver.capabilities.why_not_published

    def test_options_are_declared_once_and_explained(self, driver: Driver) -> None:
        """Keys and aliases are apart, defaults are possible, and each has its help."""
        for options in (driver.options, driver.endpoint_options):
            known = [name for option in options for name in (option.key, *option.aliases)]
            assert len(known) == len(set(known)), "two options of one name"
            for option in options:
                assert isinstance(option, Option)
                assert option.help, f"{option.key} has no help"
                if option.choices and option.default:
                    assert option.default in option.choices

    def test_unknown_options_are_refused(
        self, net: Net, network_options: Mapping[str, str]
    ) -> None:
        """By the core, with what is known."""
        with pytest.raises(InvalidOption):
            net.create("front", driver=NAME, options={**network_options, "no_such_option": "1"})
        assert not net.engine.state.networks()

    # -- what is described ------------------------------------------------------------------------

    def test_descriptions_are_repeatable_and_can_be_written_down(
        self, net: Net, driver: Driver, network: Network, boxes: tuple[Sandbox, Sandbox]
    ) -> None:
        """The same question has the same answer, and survives as JSON."""
        endpoint = net.connect(network.id, boxes[0])
        host = net.engine.facts(network.borrowed)
        wirings = (
            (driver.network_wiring(network, host), driver.network_wiring(network, host)),
            (
                driver.endpoint_wiring(network, endpoint, host),
                driver.endpoint_wiring(network, endpoint, host),
            ),
        )
        for wiring, again in wirings:
            assert isinstance(wiring, Wiring)
            assert again == wiring
            assert from_json(Wiring, to_json(wiring)) == wiring

    def test_devices_carry_the_mark_of_their_owner(
        self, net: Net, network: Network, boxes: tuple[Sandbox, Sandbox]
    ) -> None:
        """So they are found again after a crash; and Linux takes their names."""
        endpoint = net.connect(network.id, boxes[0])
        records = (
            (net.inspect(network.id).wiring, names.owner(network.id)),
            (
                net.engine.state.endpoints_of(boxes[0].name)[0].wiring,
                names.owner(network.id, endpoint.id),
            ),
        )
        for wiring, owner in records:
            for noun in wiring:
                if isinstance(noun, Link):
                    assert noun.owner == owner
                    names.check_device(noun.name)

    def test_an_endpoint_has_what_it_was_given(
        self, net: Net, driver: Driver, network: Network, boxes: tuple[Sandbox, Sandbox]
    ) -> None:
        """An interface of its name in the sandbox, unless the driver has none."""
        endpoint = net.connect(network.id, boxes[0])
        assert bool(endpoint.ifname) == driver.capabilities.interface
        if driver.capabilities.interface:
            assert endpoint.ifname in net.engine.kernel.interfaces(boxes[0].netns)
        assert bool(endpoint.addresses) == (driver.capabilities.addressing == "pool")

    def test_addresses_and_ways_out_are_those_that_an_endpoint_was_given(
        self, net: Net, network: Network, boxes: tuple[Sandbox, Sandbox]
    ) -> None:
        """A default route for each family of its `gateway_for`: others are another network's."""
        endpoint = net.connect(network.id, boxes[0])
        (record,) = net.engine.state.endpoints_of(boxes[0].name)
        inside = [noun for noun in record.wiring if noun.netns == endpoint.sandbox.netns]
        given = {noun.address.ip for noun in inside if isinstance(noun, Address)}
        assert given == {address.ip for address in endpoint.addresses}
        routes = [noun.destination for noun in inside if isinstance(noun, Route)]
        ways_out = [way.version for way in routes if way.prefixlen == 0]
        assert sorted(ways_out) == sorted(endpoint.gateway_for)

    # -- what the verbs make of it ----------------------------------------------------------------

    def test_what_is_made_is_found_as_it_was_described(
        self,
        net: Net,
        network: Network,
        boxes: tuple[Sandbox, Sandbox],
        endpoint_options: Mapping[str, str],
    ) -> None:
        """Two endpoints do not get in each other's way."""
        for box in boxes:
            net.connect(network.id, box, options=endpoint_options)
        assert net.check() == ()

    def test_a_sandbox_can_be_on_two_networks_and_leave_the_first(
        self,
        net: Net,
        network: Network,
        network_options: Mapping[str, str],
        boxes: tuple[Sandbox, Sandbox],
    ) -> None:
        """Networks of one kind have nothing of each other's, and the way out moves."""
        with suppress(Conflict):  # where the options are for one network alone
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NetWarning)
                second = net.create("back", driver=NAME, options=network_options)
            for one in (network, second):
                net.connect(one.id, boxes[0])
            assert net.check() == ()
            net.disconnect(network.id, boxes[0])
            assert net.check() == ()
            net.remove(network.id)
            assert net.check() == ()

    def test_live_options_change_while_endpoints_are_there(
        self, net: Net, driver: Driver, network: Network, boxes: tuple[Sandbox, Sandbox]
    ) -> None:
        """Each choice of each, and an `mtu`; what can't go together is refused."""
        net.connect(network.id, boxes[0])
        for option in driver.options:
            for value in (option.choices or ("1400",) * (option.key == "mtu")) * option.live:
                with suppress(InvalidOption):
                    net.update(network.id, options={option.key: value})
                assert net.check() == ()

    def test_nothing_is_left_of_endpoints_and_networks(
        self, net: Net, kernel: FakeKernel, network: Network, boxes: tuple[Sandbox, Sandbox]
    ) -> None:
        """Disconnecting gives back what connecting took, removing what creating did."""
        with_network = set(kernel.wiring())
        for box in boxes:
            net.connect(network.id, box)
        for box in boxes:
            net.disconnect(network.id, box)
        assert {n for n in kernel.wiring() if not n.shared} == {
            n for n in with_network if not n.shared
        }
        net.remove(network.id)
        assert not [noun for noun in kernel.wiring() if not noun.shared]

    def test_a_failure_at_any_step_leaves_the_host_as_it_was(
        self, net: Net, kernel: FakeKernel, network: Network, boxes: tuple[Sandbox, Sandbox]
    ) -> None:
        """All or nothing."""
        plan = net.plan.connect(network.id, boxes[0])
        before = [noun for noun in kernel.wiring() if not noun.shared]
        for number in range(1, len([*plan.steps(), *plan.after]) + 1):
            kernel.fail_at(number)
            with pytest.raises(KernelError):
                net.connect(network.id, boxes[0])
            assert [noun for noun in kernel.wiring() if not noun.shared] == before
            assert not net.endpoints()
        kernel.failing = None
        net.connect(network.id, boxes[0])

    def test_a_plan_can_be_read(
        self, net: Net, network: Network, boxes: tuple[Sandbox, Sandbox]
    ) -> None:
        """--dry-run shows it, and does nothing."""
        plan = net.plan.connect(network.id, boxes[0])
        for firewall in ("nftables", "iptables"):
            assert bool(plan.text(firewall)) == bool(plan)
        assert not net.endpoints()

    def test_repair_puts_back_what_was_lost(
        self, net: Net, kernel: FakeKernel, network: Network, boxes: tuple[Sandbox, Sandbox]
    ) -> None:
        """Here all rules of the firewall."""
        net.connect(network.id, boxes[0])
        kernel.flush_firewall()
        assert net.repair().failed == ()
        assert net.check() == ()

    def test_ports_are_published_or_it_is_said_why_not(
        self, net: Net, driver: Driver, network: Network, boxes: tuple[Sandbox, Sandbox]
    ) -> None:
        """A refusal changes nothing."""
        net.connect(network.id, boxes[0])
        if driver.capabilities.publishes:
            net.publish(boxes[0].name, ["8080:80"])
            assert net.check() == ()
            net.unpublish(boxes[0].name, ["80"])
        elif driver.capabilities.own_netns:
            with pytest.raises(Unsupported):
                net.publish(boxes[0].name, ["8080:80"])
        assert net.check() == ()

    def test_errors_are_for_people(self, net: Net, driver: Driver, network: Network) -> None:
        """What a driver refuses is a NetError, whatever nonsense it is asked."""
        for option in driver.options:
            nonsense = replace(network, options={**network.options, option.key: "\0 nonsense"})
            with suppress(NetError):  # any other error fails
                driver.check_options(nonsense)

    def test_no_prefix_of_the_hosts_is_taken(
        self, net: Net, driver: Driver, kernel: FakeKernel, network_options: Mapping[str, str]
    ) -> None:
        """Where the host is the gateway, a network gets a prefix that the host has no route to."""
        taken = ip_network("198.51.100.0/24")
        kernel.routed.append(taken)
        if driver.capabilities.gateway_on_host and driver.capabilities.addressing == "pool":
            with pytest.raises(NetError, match="overlap"):
                net.create("x", driver=NAME, subnets=[str(taken)], options=network_options)
