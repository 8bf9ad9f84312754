"""`net cluster init`: a new cluster, with this host as its first manager."""

from __future__ import annotations

import base64
import shlex
from collections.abc import Iterable, Sequence
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from netlib.cluster import files as names
from netlib.cluster import keys, member, tokens
from netlib.cluster.addresses import choose, place
from netlib.cluster.doors import Doors
from netlib.cluster.model import DATA_PORT, JOIN_PORT, Cluster, Membership, Node
from netlib.cluster.nodes import etcdctl
from netlib.cluster.server import CLIENT_PORT, PEER_PORT, Server, client_url, program
from netlib.errors import ClusterExists, InvalidAddress, InvalidOption, StoreConflict
from netlib.model import IPNetwork, bracketed
from netlib.names import new_id, new_realm
from netlib.records import dump
from netlib.values import dataclass, replace

_LEASE_SECONDS = range(3, 3601)


@dataclass(frozen=True, slots=True, kw_only=True)
class Founding:
    """A cluster as it was asked for, valid by construction."""

    cluster: Cluster
    node: Node
    membership: Membership


def prepare(
    doors: Doors,
    advertise: str = "",
    *,
    name: str = "",
    etcd: Sequence[str] = (),
    ca: str = "",
    certificate: str = "",
    key: str = "",
    user: str = "",
    password: str = "",
    data_path: str = "",
    data_port: int = DATA_PORT,
    pools: Sequence[str] = (),
    lease_seconds: int = 10,
) -> Founding:
    """What `init` would make; changes nothing."""
    member.check_free(doors)
    own = doors.own_addresses()
    host, port = place(advertise, JOIN_PORT, "--advertise-addr")
    address = choose(host, own, "--advertise-addr")
    data_address = choose(data_path, own, "--data-path-addr") if data_path else address
    if lease_seconds not in _LEASE_SECONDS:
        raise InvalidOption(
            f"a lease of {lease_seconds} s is too {'short' if lease_seconds < 3 else 'long'}",
            f"give {_LEASE_SECONDS[0]} to {_LEASE_SECONDS[-1]} seconds",
        )
    now = doors.engine.clock()
    member.check_data_port(
        doors, data_address, data_port, "choose another for all hosts: --data-path-port PORT"
    )
    member.check_port(
        doors, "tcp", address, port, f"choose another: --advertise-addr {bracketed(address)}:PORT"
    )
    cluster = Cluster(
        id=new_id(),
        realm=new_realm(),
        pools=_pools(pools),
        data_port=data_port,
        lease_seconds=lease_seconds,
        external=bool(etcd),
        created=now,
    )
    node = Node(
        id=new_id(),
        name=member.check_name(name or doors.hostname()),
        address=address,
        data_address=data_address,
        data_port=data_port,
        join_port=port,
        role="manager",
        version=member.version(),
        joined=now,
    )
    membership = Membership(
        cluster=cluster.id,
        node=node.id,
        endpoints=tuple(_url(text) for text in etcd) or (client_url(address),),
        listen=f"{bracketed(address)}:{port}",
    )
    if etcd:
        membership = replace(
            membership,
            ca=_file(ca, "--cacert"),
            certificate=_file(certificate, "--cert"),
            key=_file(key, "--key"),
            user=user,
            password=password,
        )
    elif ca or certificate or key or user or password:
        raise InvalidOption(
            "certificates and users are those of an etcd that runs already",
            "name it with --etcd URL, or leave them out",
        )
    else:
        program()
        member.check_join_port(port)
        for one in (CLIENT_PORT, PEER_PORT):
            hint = "end that program; or, if it is the etcd to use: --etcd URL"
            member.check_port(doors, "tcp", address, one, hint)
        files = doors.files
        membership = replace(
            membership,
            ca=files.path(names.CA),
            certificate=files.path(names.CERTIFICATE),
            key=files.path(names.KEY),
            supervised=True,
        )
    return Founding(cluster=cluster, node=node, membership=membership)


def plan(doors: Doors, founding: Founding) -> tuple[str, ...]:
    """What `make` would do, as commands."""
    node, membership = founding.node, founding.membership
    lines = [f"host  mkdir -m 0700 {doors.files.folder}"]
    if membership.supervised:
        server = Server(doors.files.folder)
        lines.append(f"host  {shlex.join(server.command(_flags(server, founding)))}")
    lines += [
        f"host  {etcdctl(membership, 'put', key, value)}"
        for key, value in (
            (keys.CLUSTER, dump(founding.cluster)),
            (keys.node(node.id), dump(node)),
            (keys.node_name(node.name), node.id),
        )
    ]
    return tuple(lines)


def make(doors: Doors, founding: Founding) -> Node:
    """Make a cluster with this host as its first manager.

    `advertise` is its address or device, with a port where others join it; `etcd` the URLs of an
    etcd that runs, with `ca`, `certificate` and `key` (files) or `user` and `password`; without,
    this host runs one. `data_path` and `data_port` are where tunnelled frames go, `pools` where
    networks get their subnets, `lease_seconds` how long a host may be silent before its endpoints
    are taken for gone. Raises AlreadyMember, NotLocal, PortTaken, EtcdMissing, ClusterExists.

    Example:  net cluster init --advertise-addr eth0
    """
    cluster, node, membership = founding.cluster, founding.node, founding.membership
    _make_keys(doors, cluster, node)
    if membership.supervised:
        server = Server(doors.files.folder)
        server.configure(_flags(server, founding))
        member.start(doors, membership)
    store = doors.open_store(membership)
    try:
        member.enrol(store, node, first={keys.CLUSTER: dump(cluster)})
        member.keep(doors, store, node, membership, also=(keys.CLUSTER,))
    except StoreConflict as conflict:
        raise ClusterExists(
            f"the etcd at {', '.join(membership.endpoints)} has a cluster already",
            "join it with a token that a manager prints: net cluster join-token; or, if nobody is "
            f"left of it: etcdctl del --prefix {membership.prefix}",
        ) from conflict
    finally:
        store.close()
    return node


def _flags(server: Server, founding: Founding) -> dict[str, Any]:
    node = founding.node
    return server.flags(
        node=node.id, address=node.address, cluster=founding.cluster.id, members=None
    )


def _make_keys(doors: Doors, cluster: Cluster, node: Node) -> None:
    from netlib.cluster.certificates import Authority, Request

    authority, request = Authority.new(cluster.id), Request.new(node.id)
    files = doors.files
    files.write(names.CA, authority.certificate)
    files.write(names.CA_KEY, authority.key)
    files.write(names.REVOKED, authority.revoke(()))
    files.write(names.TOKEN_KEY, base64.b64encode(tokens.new_key()).decode())
    files.write(names.KEY, request.key)
    certificate = authority.sign(request.text, node.id, "manager", [node.address])
    files.write(names.CERTIFICATE, certificate)


def _pools(texts: Iterable[str]) -> tuple[IPNetwork, ...]:
    found: list[IPNetwork] = []
    for text in texts:
        try:
            pool = ip_network(text)
        except ValueError as error:
            hint = "write it as 10.10.0.0/16"
            raise InvalidAddress(f"{text!r} is no prefix: {error}", hint) from error
        if any(pool.version == other.version and pool.overlaps(other) for other in found):
            raise InvalidAddress(f"{pool} overlaps another pool that was given", "leave one out")
        found.append(pool)
    return tuple(found)


def _url(text: str) -> str:
    """An etcd's URL as clients want it."""
    parts = urlsplit(text)
    try:
        fits = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # the port
        fits = False
    if not fits or parts.path not in ("", "/"):
        raise InvalidAddress(f"{text!r} is no URL of an etcd", "write it as https://192.0.2.1:2379")
    return f"{parts.scheme}://{parts.netloc}"


def _file(path: str, option: str) -> str:
    """A file by its whole path: the daemon works elsewhere."""
    if not path:
        return ""
    try:
        with open(path, "rb"):
            return str(Path(path).absolute())
    except OSError as error:
        raise InvalidOption(f"{option} {path} can't be read: {error.strerror}") from error
