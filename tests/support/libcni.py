"""A small runtime: executes a conflist as libcni does (CNI specification 1.1.0)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Run = Callable[[str, Mapping[str, str], bytes], tuple[str, int]]
Attachment = tuple[str, str]


class CniError(Exception):
    """A plugin ended with an error: its document."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        super().__init__(f"{document['code']}: {document['msg']}; {document.get('details', '')}")
        self.code = document["code"]
        self.message = document["msg"]
        self.document = document


@dataclass
class Runtime:
    """Runs the plugins of a list and caches results, as libcni does.

    `run(type, environment, stdin)` runs one plugin. `args` are capability args.
    """

    conflist: Mapping[str, Any]
    run: Run
    path: str = "/usr/lib/cni"
    cache: dict[Attachment, tuple[dict[str, Any], Mapping[str, Any], str]] = field(
        default_factory=dict
    )

    def add(
        self, container: str, netns: str, ifname: str = "eth0", *, cni_args: str = "", **args: Any
    ) -> dict[str, Any]:
        """ADD of all plugins in order, each with the former's result."""
        result: dict[str, Any] | None = None
        for plugin in self.conflist["plugins"]:
            said = self._call("ADD", plugin, container, netns, ifname, result, args, cni_args)
            result = json.loads(said)
        assert result is not None
        self.cache[container, ifname] = (result, args, netns)
        return result

    def check(self, container: str, ifname: str = "eth0") -> None:
        """CHECK of all plugins in order with the final result."""
        result, args, netns = self.cache[container, ifname]
        for plugin in self.conflist["plugins"]:
            assert not self._call("CHECK", plugin, container, netns, ifname, result, args)

    def delete(self, container: str, ifname: str = "eth0", netns: str | None = None) -> None:
        """DEL of all plugins in reverse order with the final result."""
        result, args, path = self.cache.get((container, ifname), (None, {}, ""))
        netns = path if netns is None else netns
        for plugin in reversed(self.conflist["plugins"]):
            assert not self._call("DEL", plugin, container, netns, ifname, result, args)
        self.cache.pop((container, ifname), None)

    def status(self) -> None:
        """STATUS of all plugins."""
        for plugin in self.conflist["plugins"]:
            self._call("STATUS", plugin)

    def collect(self, valid: Sequence[Attachment]) -> None:
        """GC: cached attachments that are not valid are deleted, then each plugin is told."""
        for container, ifname in set(self.cache) - set(valid):
            self.delete(container, ifname)
        attachments = [{"containerID": c, "ifname": i} for c, i in valid]
        for plugin in self.conflist["plugins"]:
            self._call("GC", {**plugin, "cni.dev/valid-attachments": attachments})

    def _call(
        self,
        command: str,
        plugin: Mapping[str, Any],
        container: str = "",
        netns: str = "",
        ifname: str = "",
        result: Mapping[str, Any] | None = None,
        args: Mapping[str, Any] | None = None,
        cni_args: str = "",
    ) -> str:
        config = {key: value for key, value in plugin.items() if key != "capabilities"}
        config |= {"cniVersion": self.conflist["cniVersion"], "name": self.conflist["name"]}
        declared = plugin.get("capabilities", {})
        runtime = {key: value for key, value in (args or {}).items() if declared.get(key)}
        if runtime:
            config["runtimeConfig"] = runtime
        if result is not None:
            config["prevResult"] = result
        environment = {"CNI_COMMAND": command, "CNI_PATH": self.path}
        if container:
            environment |= {"CNI_CONTAINERID": container, "CNI_IFNAME": ifname}
            environment |= {"CNI_NETNS": netns, "CNI_ARGS": cni_args}
        said, status = self.run(plugin["type"], environment, json.dumps(config).encode())
        if status:
            raise CniError(json.loads(said))
        return said
