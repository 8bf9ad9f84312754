"""Another plugin that chooses addresses: run as the specification says, "Section 4"."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

from netlib.frontends.cni import results
from netlib.frontends.cni.config import Config
from netlib.frontends.cni.declaring import Range
from netlib.frontends.cni.refusal import (
    INPUT_OUTPUT,
    INVALID_CONFIG,
    INVALID_ENVIRONMENT,
    Refusal,
)
from netlib.frontends.cni.request import Request
from netlib.model import EVERYWHERE, FAMILIES, IPInterface, IPNetwork
from netlib.values import dataclass

_SECONDS = 60.0
# They ask by the interface itself, and go on doing so while it is there.
_BY_INTERFACE = frozenset({"dhcp"})


def needs_interface(config: Config) -> bool:
    """Whether the plugin that chooses addresses needs the interface before that."""
    return config.delegate in _BY_INTERFACE


@dataclass(frozen=True, slots=True)
class Ipam:
    """The IPAM plugin of one call."""

    request: Request
    config: Config

    def add(self) -> results.Result:
        """Its result, as version 1.1.0 has it, with one address at least."""
        result = results.read(self._run("ADD"), self.config.version, f"result of {self._name}")
        if not result["ips"]:
            raise Refusal(INVALID_CONFIG, f"IPAM plugin {self._name} returned no address")
        return result

    def delete(self) -> None:
        """Have it free what it holds for this attachment."""
        self._run("DEL")

    def forward(self, command: str) -> None:
        """Have it do CHECK, STATUS or GC likewise."""
        self._run(command)

    @property
    def _name(self) -> str:
        return self.config.delegate

    def _run(self, command: str) -> Any:
        import subprocess  # only where another plugin is asked: 5 ms

        program = self._find()
        environment = {**self.request.environment, "CNI_COMMAND": command}
        try:
            done = subprocess.run(
                [program],
                input=json.dumps(self.config.document).encode(),
                capture_output=True,
                env=environment,
                timeout=_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Refusal(
                INPUT_OUTPUT, f"IPAM plugin {program} could not be run: {error}"
            ) from error
        if done.stderr:  # it is to be the caller's, too (specification, "Section 4")
            sys.stderr.write(done.stderr.decode(errors="replace"))
        document = _parsed(done.stdout)
        if done.returncode:
            raise self._failure(document, done.stderr, done.returncode)
        return document

    def _failure(self, document: Any, stderr: bytes, status: int) -> Refusal:
        """Its error is ours."""
        if isinstance(document, dict) and isinstance(document.get("code"), int):
            return Refusal(
                document["code"], str(document.get("msg", "")), str(document.get("details", ""))
            )
        said = stderr.decode(errors="replace").strip()
        return Refusal(INPUT_OUTPUT, f"IPAM plugin {self._name} ended with {status}", said)

    def _find(self) -> str:
        if not self.request.path:
            raise Refusal(INVALID_ENVIRONMENT, "required env variables [CNI_PATH] missing")
        for folder in self.request.path:
            program = os.path.join(folder, self._name)
            if os.access(program, os.X_OK) and os.path.isfile(program):
                return program
        raise Refusal(
            INVALID_CONFIG,
            f"failed to find plugin {self._name!r} in path {list(self.request.path)}",
            "install it there, or leave ipam out to have netlib choose addresses",
        )


def ranges_of(result: results.Result) -> tuple[Range, ...]:
    """The subnets that an IPAM plugin's addresses are from."""
    return tuple(
        Range(subnet=str(ip_interface(ip["address"]).network), gateway=ip.get("gateway") or "")
        for ip in result["ips"]
    )


def gateways_of(result: results.Result) -> dict[int, str]:
    """Its first gateway of each family."""
    return {
        ip_interface(ip["address"]).version: str(ip_address(ip["gateway"]))
        for ip in reversed(result["ips"])
        if ip.get("gateway")
    }


def own_routes_of(result: results.Result) -> dict[str, str]:
    """Its routes as an endpoint's own has them: gateways by destination."""
    gateways = gateways_of(result)
    default = {EVERYWHERE[family]: via for family in FAMILIES if (via := gateways.get(family))}
    return default | {str(to): via for to, via, _ in _routes(result)}


def routes_of(result: results.Result) -> str:
    """Its routes as the option `routes` has them; default routes follow from the gateway."""
    texts = [
        f"{destination} via {via}" + (f" metric {metric}" if metric else "")
        for destination, via, metric in _routes(result)
        if destination.prefixlen
    ]
    return ", ".join(dict.fromkeys(texts))


def _routes(result: results.Result) -> Iterator[tuple[IPNetwork, str, int]]:
    """Destination, gateway and metric; of those to one destination by one metric the first."""
    gateways = gateways_of(result)
    seen: set[tuple[IPNetwork, int]] = set()
    for route in result["routes"]:
        try:
            destination = ip_network(route["dst"])
            via = route.get("gw") or gateways.get(destination.version)
            metric = int(route.get("priority") or 0)
            if via and (destination, metric) not in seen:
                seen.add((destination, metric))
                yield destination, str(ip_address(via)), metric
        except (KeyError, TypeError, ValueError) as error:
            said = f"a route of the IPAM plugin can't be read: {route}"
            raise Refusal(INVALID_CONFIG, said) from error


def interfaces_of(result: results.Result) -> tuple[IPInterface, ...]:
    """The addresses with their prefix lengths."""
    return tuple(ip_interface(ip["address"]) for ip in result["ips"])


def addresses_of(result: results.Result) -> tuple[str, ...]:
    """The addresses themselves."""
    return tuple(str(ip_interface(ip["address"]).ip) for ip in result["ips"])


def _parsed(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
