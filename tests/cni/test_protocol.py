"""What is refused, and in which words, before anything is touched; and versions of results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.made import made

from netlib import Net
from netlib.frontends.cni import answer
from netlib.frontends.cni.config import parse
from netlib.frontends.cni.refusal import Refusal
from netlib.frontends.cni.results import VERSIONS, read, write
from netlib.kernel.fake import FakeKernel
from netlib.store.memory import MemoryStore

ADD = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "one",
    "CNI_NETNS": "/run/netns/web",
    "CNI_IFNAME": "eth0",
    "CNI_PATH": "/opt/cni/bin",
}
CONFIG: dict[str, Any] = {"cniVersion": "1.1.0", "name": "front", "type": "netlib"}


def fake() -> Net:
    """A library on a host of paper, with one namespace."""
    kernel = FakeKernel()
    kernel.add_namespace("web")
    return Net(store=MemoryStore(), kernel=kernel)


def call(
    environment: Mapping[str, str] = ADD, config: Any = CONFIG, net: Net | None = None, **more: str
) -> tuple[dict[str, Any], int]:
    """The answer to a call on such a host."""
    stdin = config if isinstance(config, bytes) else json.dumps(config).encode()
    said = answer(lambda: net or fake(), {**environment, **more}, stdin)
    assert not said.log, said.log
    return json.loads(said.stdout or "{}"), said.status


def test_an_attachment_on_the_fake_host() -> None:
    """The same function that runtimes reach does it on paper, too."""
    net = fake()
    said, status = call(net=net)
    assert status == 0, said
    assert said["ips"][0]["interface"] == len(said["interfaces"]) - 1
    assert call({**ADD, "CNI_COMMAND": "DEL"}, net=net) == ({}, 0)


@pytest.mark.parametrize(
    ("environment", "code", "words"),
    [
        ({}, 4, "CNI_COMMAND"),
        ({"CNI_COMMAND": "ad"}, 4, "unknown CNI_COMMAND: ad"),
        ({"CNI_COMMAND": "ADD"}, 4, "CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME"),
        ({"CNI_COMMAND": "DEL"}, 4, "CNI_CONTAINERID,CNI_IFNAME"),
        ({"CNI_COMMAND": "GC"}, 4, "CNI_PATH"),
        ({**ADD, "CNI_CONTAINERID": "a/b"}, 4, "containerID"),
        ({**ADD, "CNI_CONTAINERID": "-a"}, 4, "containerID"),
        ({**ADD, "CNI_IFNAME": "a/b"}, 4, "CNI_IFNAME"),
        ({**ADD, "CNI_IFNAME": "x" * 16}, 4, "CNI_IFNAME"),
        ({**ADD, "CNI_IFNAME": ".."}, 4, "CNI_IFNAME"),
        ({**ADD, "CNI_IFNAME": "a:b"}, 4, "CNI_IFNAME"),
        ({**ADD, "CNI_IFNAME": "all"}, 4, "CNI_IFNAME"),
        ({**ADD, "CNI_IFNAME": "default"}, 4, "CNI_IFNAME"),
        ({**ADD, "CNI_ARGS": "FOO=1"}, 4, "FOO"),
        ({**ADD, "CNI_ARGS": "FOO"}, 4, "FOO"),
        ({**ADD, "CNI_NETNS": "/run/netns/nobody"}, 3, "netns"),
    ],
)
def test_bad_variables_are_refused(environment: dict[str, str], code: int, words: str) -> None:
    """With the code of the specification, and all that is missing in one message."""
    said, status = call(environment)
    assert (said["code"], status) == (code, 1)
    assert words in said["msg"]


def test_unknown_arguments_may_be_ignored() -> None:
    """As runtimes of Kubernetes ask for."""
    assert call(CNI_ARGS="IgnoreUnknown=1;K8S_POD_NAME=web;MAC=02:00:5e:00:53:01")[1] == 0


@pytest.mark.parametrize(
    ("config", "code", "words"),
    [
        (b"", 6, "no JSON"),
        (b"{", 6, "no JSON"),
        (b"[]", 6, "no JSON object"),
        (b"[" * 100_000, 6, "no JSON"),
        ({**CONFIG, "cniVersion": "9.0.0"}, 1, "incompatible"),
        ({"name": "front"}, 1, "incompatible"),
        ({**CONFIG, "name": ""}, 7, "missing network name"),
        ({**CONFIG, "name": "a/b"}, 7, "network name"),
        ({**CONFIG, "name": 5}, 7, "name"),
        ({**CONFIG, "subnet": "198.51.100.0/33"}, 7, "subnet"),
        ({**CONFIG, "subnet": 5}, 7, "subnet"),
        ({**CONFIG, "subnet": "198.51.100.0/24", "gateway": "203.0.113.1"}, 7, "not within"),
        ({**CONFIG, "network": "front", "subnet": "198.51.100.0/24"}, 7, "network names"),
        ({**CONFIG, "driver": "brigde"}, 7, "brigde"),
        ({**CONFIG, "options": {"mtuu": "1"}}, 7, "mtuu"),
        ({**CONFIG, "mtu": -1}, 7, "mtu"),
        ({**CONFIG, "ipMasq": "yes"}, 7, "ipMasq"),
        ({**CONFIG, "vlan": 5}, 2, "vlan 5"),
        ({**CONFIG, "promiscMode": True}, 2, "promiscMode True"),
        ({**CONFIG, "network": "front", "mtu": 1400, "ipam": {"subnet": "198.51.100.0/24"}}, 7,
         "as it was made: mtu, ipam.subnet"),
        ({**CONFIG, "ipam": {"ranges": [[{"subnet": "198.51.100.0/25"}],
                                        [{"subnet": "198.51.100.128/25"}]]}}, 7, "two sets"),
        ({**CONFIG, "ipam": {"type": "../x"}}, 7, "ipam.type"),
        ({**CONFIG, "ipam": {"type": "nobody"}}, 7, "nobody"),
        ({**CONFIG, "ipam": {"routes": [{"dst": "x"}]}}, 7, "routes"),
        ({**CONFIG, "subnet": "203.0.113.7/32",
          "ipam": {"routes": [{"dst": "198.51.100.0/24"}]}}, 7, "needs a gateway"),
        ({**CONFIG, "ipam": {"resolvConf": "/etc/resolv.conf"}}, 2, "resolvConf"),
        ({**CONFIG, "subnet": "198.51.100.0/24",
          "ipam": {"routes": [{"dst": "0.0.0.0/0", "gw": "198.51.100.9"}]}}, 7, "gateway"),
        ({**CONFIG, "runtimeConfig": {"portMappings": [{"hostPort": 0}]}}, 7, "host port"),
        ({**CONFIG, "runtimeConfig": {"portMappings": [
            {"hostPort": 80, "containerPort": 70000}]}}, 7, "70000"),
        ({**CONFIG, "runtimeConfig": {"portMappings": [
            {"hostPort": 80, "containerPort": 80, "protocol": "icmp"}]}}, 7, "icmp"),
        ({**CONFIG, "runtimeConfig": {"mac": "xx"}}, 7, "xx"),
        ({**CONFIG, "runtimeConfig": {"ips": ["x"]}}, 7, "x"),
        ({**CONFIG, "runtimeConfig": {"ips": ["192.0.2.5/99"]}}, 7, "192.0.2.5/99"),
        ({**CONFIG, "runtimeConfig": {"bandwidth": {"egressRate": 5}}}, 2, "bandwidth"),
        ({**CONFIG, "prevResult": []}, 7, "prevResult"),
        ({**CONFIG, "prevResult": {"ips": [{"address": "x"}]}}, 7, "prevResult"),
        ({**CONFIG, "prevResult": {"ips": [
            {"address": "192.0.2.1/24", "interface": 3}]}}, 7, "interface"),
        ({**CONFIG, "prevResult": {"ips": [{"address": 16909060}]}}, 7, "16909060"),
        ({**CONFIG, "prevResult": {"ips": [
            {"address": "192.0.2.1/24", "gateway": 5}]}}, 7, "gateway 5"),
        ({**CONFIG, "prevResult": {"routes": [{"dst": "x"}]}}, 7, "dst 'x'"),
        ({**CONFIG, "prevResult": {"routes": [{"dst": "192.0.2.0/24", "gw": "x"}]}}, 7, "gw 'x'"),
        ({**CONFIG, "ipam": {"type": "static\0"}}, 7, "ipam.type"),
    ],
)  # fmt: skip
def test_bad_configurations_are_refused(config: Any, code: int, words: str) -> None:
    """With the code of the specification, and nothing is made."""
    net = fake()
    said, status = call(config=config, net=net)
    assert (said["code"], status) == (code, 1), said
    assert words in said["msg"] + said.get("details", "")
    assert said["cniVersion"] in VERSIONS
    assert made(net) == []


@pytest.mark.parametrize(
    "half", [{}, {"containerID": "one"}, {"ifname": "eth0"}, {"containerID": "one", "ifname": ""}]
)
def test_half_an_attachment_is_none_that_garbage_is_told_by(half: dict[str, str]) -> None:
    """Whoever was meant would lose what it has."""
    net = fake()
    assert call(net=net)[1] == 0
    valid = {"cni.dev/valid-attachments": [half]}
    said, status = call({**ADD, "CNI_COMMAND": "GC"}, {**CONFIG, **valid}, net)
    assert (said["code"], status) == (7, 1), said
    assert len(net.endpoints()) == 1


@pytest.mark.parametrize(
    ("environment", "config"),
    [
        ({**ADD, "CNI_ARGS": "\udcff=1"}, CONFIG),
        ({**ADD, "CNI_COMMAND": "\udcff"}, CONFIG),
        (ADD, {**CONFIG, "dns": {"search": ["\ud800"]}}),
    ],
)
def test_answers_are_text_whatever_they_repeat(environment: Mapping[str, str], config: Any) -> None:
    """Bytes that are no UTF-8 come in by variables, halves of characters by JSON's escapes."""
    said = answer(fake, environment, json.dumps(config).encode())
    assert not said.log, said.log
    assert json.loads(said.stdout.encode())["cniVersion"] == "1.1.0"


@pytest.mark.parametrize(
    "refused",
    [
        {"vlan": 5},
        {"subnet": "nonsense"},
        {"ipam": 5},
        {"ipam": {"type": "a/b"}},
        {"network": 5},
        {"ifname": ["eth0"]},
        {"runtimeConfig": {"bandwidth": {"egressRate": 5}}},
        {"runtimeConfig": {"portMappings": [{"hostPort": 0}]}},
        {"prevResult": {"cniVersion": "9.0.0"}},
        {"prevResult": []},
    ],
)
def test_what_was_refused_can_be_taken_away(refused: dict[str, Any]) -> None:
    """A runtime calls DEL after an ADD that failed, until that succeeds."""
    net, config = fake(), {**CONFIG, **refused}
    arguments = {"CNI_ARGS": "FOO=1"}
    assert call(config=config, net=net)[1] == 1
    assert call({**ADD, **arguments}, net=net)[1] == 1
    assert call({**ADD, **arguments, "CNI_COMMAND": "DEL"}, config, net) == ({}, 0)
    gone = {**config, "cni.dev/valid-attachments": []}
    assert call({**ADD, "CNI_COMMAND": "GC"}, gone, net) == ({}, 0)


@pytest.mark.parametrize(
    ("command", "version"), [("CHECK", "0.3.1"), ("GC", "1.0.0"), ("STATUS", "1.0.0")]
)
def test_commands_of_later_versions_are_refused(command: str, version: str) -> None:
    """Code 1: a runtime that knows its version would not call."""
    said, _ = call({**ADD, "CNI_COMMAND": command}, {**CONFIG, "cniVersion": version})
    assert said["code"] == 1


def test_version_needs_nothing() -> None:
    """It repeats the version that is asked with."""
    said, status = call({"CNI_COMMAND": "VERSION"}, {"cniVersion": "0.4.0"})
    assert (said["cniVersion"], said["supportedVersions"], status) == ("0.4.0", list(VERSIONS), 0)
    assert call({"CNI_COMMAND": "VERSION"}, b"")[1] == 0


RESULT = {
    "interfaces": [{"name": "eth0", "mac": "02:00:5e:00:53:01", "sandbox": "/x", "mtu": 1400}],
    "ips": [{"address": "192.0.2.9/24", "gateway": "192.0.2.1", "interface": 0},
            {"address": "2001:db8::9/64"}],
    "routes": [{"dst": "0.0.0.0/0", "gw": "192.0.2.1", "priority": 5}],
    "dns": {"nameservers": ["192.0.2.1"]},
}  # fmt: skip


@pytest.mark.parametrize("version", VERSIONS)
def test_results_survive_every_version(version: str) -> None:
    """What an old version can't say is left out; all else comes back."""
    back = read(write(RESULT, version), version)
    if version == "1.1.0":
        assert back == RESULT
    assert [ip["address"] for ip in back["ips"]] == ["192.0.2.9/24", "2001:db8::9/64"]
    assert back["dns"] == RESULT["dns"]
    versions = [ip.get("version") for ip in write(RESULT, version)["ips"]]
    assert versions == (["4", "6"] if version < "1.0.0" else [None, None])


def test_results_of_the_oldest_versions_are_read() -> None:
    """0.2.0 has one address of each family."""
    old = {"cniVersion": "0.2.0", "ip4": {"ip": "192.0.2.9/24", "gateway": "192.0.2.1",
           "routes": [{"dst": "0.0.0.0/0"}]}, "ip6": {"ip": "2001:db8::9/64"}}  # fmt: skip
    assert read(old, "1.1.0")["ips"] == [
        {"address": "192.0.2.9/24", "gateway": "192.0.2.1"},
        {"address": "2001:db8::9/64"},
    ]


KEYS = [
    "cniVersion", "name", "type", "network", "driver", "options", "labels", "subnet", "subnets",
    "gateway", "rangeStart", "rangeEnd", "ranges", "ipam", "mtu", "ipMasq", "isGateway", "dns",
    "isDefaultGateway", "runtimeConfig", "args", "cni", "prevResult", "portMappings", "ips",
    "mac", "aliases", "ipRanges", "bandwidth", "hostPort", "containerPort", "protocol", "hostIP",
    "interfaces", "routes", "dst", "gw", "address", "interface", "nameservers", "servers", "vlan",
    "cni.dev/valid-attachments", "containerID", "ifname", "internal", "ipv4", "ipv6", "bridge",
    "hairpinMode", "portIsolation", "master", "mode", "rates", "isGateway", "domain", "search",
]  # fmt: skip
LEAVES = (
    st.none() | st.booleans() | st.integers(-5, 70000) | st.text(max_size=8)
    | st.sampled_from(["192.0.2.0/24", "192.0.2.9", "2001:db8::/64", "tcp", "1.1.0", "0.2.0",
                       "front", "netlib", "02:00:5e:00:53:01", "eth0"])
)  # fmt: skip
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=6)
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=10))
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_configuration_is_read_or_refused(document: dict[str, Any]) -> None:
    """Never another error, whatever it is made of."""
    valid = {**document, "cniVersion": "1.1.0", "name": "front"}
    for config in (document, valid):
        code = 7
        try:
            parse(json.dumps(config).encode(), {})
        except Refusal as refusal:
            code = refusal.cni_code
        assert code in (1, 2, 6, 7)


@given(st.binary(max_size=64))
def test_any_bytes_are_answered(stdin: bytes) -> None:
    """With an error document, whatever a runtime sends."""
    said = answer(fake, ADD, stdin)
    assert said.status == 1
    assert json.loads(said.stdout)["code"] in (1, 6, 7)
    assert not said.log


PREFIXES = st.sampled_from(["198.51.100.0/24", "198.51.100.0/30", "198.51.100.4/30",
                            "2001:db8::/64", "203.0.113.7/32", "192.0.2.0/31", "0.0.0.0/0",
                            "x", ""])  # fmt: skip
ADDRESSES = st.sampled_from(["198.51.100.1", "198.51.100.5", "198.51.100.255", "2001:db8::1", "::",
                             "203.0.113.7", "198.51.100.2/24", "x", ""])  # fmt: skip
FLAGS = st.booleans()
NUMBERS = st.sampled_from([0, 1, 67, 80, 1280, 8080, 65535, 65536])
RANGES = st.fixed_dictionaries(
    {"subnet": PREFIXES},
    optional={"rangeStart": ADDRESSES, "rangeEnd": ADDRESSES, "gateway": ADDRESSES},
)
ROUTES = st.lists(st.fixed_dictionaries({"dst": PREFIXES}, optional={"gw": ADDRESSES}), max_size=2)
PORTS = st.fixed_dictionaries(
    {"hostPort": NUMBERS, "containerPort": NUMBERS},
    optional={"protocol": st.sampled_from(["tcp", "UDP", "sctp", ""]), "hostIP": ADDRESSES},
)
OPTIONS = st.dictionaries(
    st.sampled_from(["mtu", "icc", "masquerade", "gateway_mode", "gateway_mode_ipv6", "parent",
                     "bridge.name", "routes", "metric", "names", "mode", "isolate", "vni"]),
    st.sampled_from(["true", "false", "routed", "isolated", "1400", "5", "br0", "bridge", ""]),
    max_size=2,
)  # fmt: skip
PLAUSIBLE = st.fixed_dictionaries(
    {},
    optional={
        "driver": st.sampled_from(
            ["bridge", "macvlan", "ipvlan", "ptp", "host", "none", "overlay"]
        ),
        "network": st.sampled_from(["front", "bridge", "host", "none", "nobody", ""]),
        "subnet": PREFIXES,
        "gateway": ADDRESSES,
        "rangeStart": ADDRESSES,
        "subnets": st.lists(PREFIXES | RANGES, max_size=3),
        "ipv4": FLAGS,
        "ipv6": FLAGS,
        "internal": FLAGS,
        "isGateway": FLAGS,
        "isDefaultGateway": FLAGS,
        "ipMasq": FLAGS,
        "hairpinMode": FLAGS,
        "portIsolation": FLAGS,
        "mtu": NUMBERS,
        "bridge": st.sampled_from(["br0", "eth0", "x" * 16, ""]),
        "options": OPTIONS,
        "ifname": st.sampled_from(["eth1", "lo", "a/b", ""]),
        "mac": st.sampled_from(["02:00:5e:00:53:01", "01:00:5e:00:53:01", "02005e005301"]),
        "ipam": st.fixed_dictionaries(
            {},
            optional={
                "type": st.sampled_from(["netlib", "dhcp", "host-local", ""]),
                "ranges": st.lists(st.lists(RANGES, max_size=2), max_size=2),
                "routes": ROUTES,
            },
        ),
        "runtimeConfig": st.fixed_dictionaries(
            {},
            optional={
                "portMappings": st.lists(PORTS, max_size=3),
                "ips": st.lists(ADDRESSES, max_size=2),
                "ipRanges": st.lists(st.lists(RANGES, max_size=2), max_size=2),
                "aliases": st.lists(st.sampled_from(["web", "-", "a b", ""]), max_size=2),
            },
        ),
    },
)


@given(PLAUSIBLE | st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=6))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_configuration_is_served_or_refused_and_leaves_nothing(
    document: dict[str, Any],
) -> None:
    """All commands, on a host of paper: whatever ADD made of it, DEL takes away."""
    net = fake()
    config = {**document, "cniVersion": "1.1.0", "name": "front"}
    said, status = call(config=config, net=net)
    codes = [said.get("code")]
    assert said.get("msg") != ""
    if not status:
        assert call({**ADD, "CNI_COMMAND": "CHECK"}, {**config, "prevResult": said}, net)[1] == 0
    for command in ("STATUS", "GC"):
        codes.append(call({**ADD, "CNI_COMMAND": command}, config, net)[0].get("code"))
    assert 999 not in codes
    call({**ADD, "CNI_COMMAND": "DEL"}, config, net)
    assert net.endpoints() == ()
    assert net.sandboxes() == ()
    assert net.engine.state.store.range("lease/", "lease0") == []
