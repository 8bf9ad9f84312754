"""`net cluster join`: this host becomes a member of a cluster that a token lets it into."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from netlib.cluster import files as names
from netlib.cluster import keys, member, tokens
from netlib.cluster.addresses import choose, place
from netlib.cluster.asking import Manager
from netlib.cluster.doors import Doors
from netlib.cluster.etcd_members import EtcdMembers
from netlib.cluster.model import JOIN_PORT, PREFIX, Availability, Cluster, Membership, Node
from netlib.cluster.nodes import all_nodes, check_availability
from netlib.cluster.server import CLIENT_PORT, PEER_PORT, Server, client_url, program
from netlib.codec import from_json
from netlib.errors import InvalidAddress, ManagerUnreachable, NetError
from netlib.model import bracketed
from netlib.names import new_id
from netlib.records import dump
from netlib.store import Store
from netlib.values import dataclass, replace

if TYPE_CHECKING:
    from netlib.cluster.certificates import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Joining:
    """What was asked for, and a manager that was seen to be one of the token's cluster."""

    manager: Manager
    token: str
    node: Node


def prepare(
    doors: Doors,
    manager: str,
    token: str,
    *,
    advertise: str = "",
    data_path: str = "",
    name: str = "",
    availability: Availability = "active",
) -> Joining:
    """What `join` would do; changes nothing, here or there."""
    member.check_free(doors)
    known = tokens.read(token)
    host, port = place(manager, JOIN_PORT, "the manager's address")
    node_name = member.check_name(name or doors.hostname())
    asked, join_port = place(advertise, JOIN_PORT, "--advertise-addr")
    own = doors.own_addresses()
    if asked:
        choose(asked, own, "--advertise-addr")
    there = Manager(host, port, known, doors.engine.clock)
    there.greet()
    # The address by which the manager is reached is one by which others reach us, as a rule.
    address = choose(asked or there.local_address, own, "--advertise-addr")
    if known.role == "manager":
        program()
        member.check_join_port(join_port)
        for one in (join_port, CLIENT_PORT, PEER_PORT):
            member.check_port(doors, "tcp", address, one, "end that program, or join as a worker")
    return Joining(
        manager=there,
        token=token,
        node=Node(
            id=new_id(),
            name=node_name,
            address=address,
            data_address=choose(data_path, own, "--data-path-addr") if data_path else address,
            join_port=join_port,
            role=known.role,
            availability=check_availability(availability),
            version=member.version(),
            joined=doors.engine.clock(),
        ),
    )


def plan(doors: Doors, joining: Joining) -> tuple[str, ...]:
    """What `join` would do, as commands."""
    lines = [f"host  mkdir -m 0700 {doors.files.folder}"]
    if joining.node.role == "manager":
        lines.append(f"host  {program()} --name={joining.node.id} --initial-cluster-state=existing")
    return (*lines, f"host  etcdctl put {PREFIX}{keys.node(joining.node.id)} {dump(joining.node)}")


def join(doors: Doors, joining: Joining) -> Node:
    """Become a member of the cluster whose manager is at HOST:PORT, in the token's role.

    `advertise` is this host's address or device, that by which it reaches the manager if none
    is given; `data_path` where it takes tunnelled frames. Raises AlreadyMember, WrongToken,
    ExpiredToken, ManagerUnreachable, ClockSkew, NotLocal, PortTaken, NameTaken, AddressTaken.

    Example:  net cluster join --token TOKEN 192.0.2.1:2377
    """
    from netlib.cluster.certificates import Request

    node = joining.node
    request = Request.new(node.id)
    asked = {
        "do": "join",
        "token": joining.token,
        "node": node.id,
        "address": str(node.address),
        "request": request.text,
    }
    # etcd takes a further server only some seconds after the last one, so managers may wait.
    answer = member.insist(lambda: joining.manager.ask(asked))
    try:
        cluster = from_json(Cluster, answer["cluster"])
        membership = _kept(doors, node, request, cluster, answer)
    except (KeyError, TypeError, ValueError) as error:
        raise ManagerUnreachable(
            f"the answer of the manager at {joining.manager.name} can't be read: {error!r}",
            "use the same version of netlib on all hosts",
        ) from error
    try:
        return _enrolled(doors, node, cluster, membership, answer)
    except BaseException:
        if "member" in answer:
            with suppress(NetError):  # the others then wait for it, until somebody tries again
                EtcdMembers(membership).remove(answer["member"])
        raise


def _enrolled(
    doors: Doors, node: Node, cluster: Cluster, membership: Membership, answer: Mapping[str, Any]
) -> Node:
    """Known to all, and here: the node as it is then."""
    member.check_data_port(
        doors, node.data_address, cluster.data_port, "end that program: all hosts use that port"
    )
    node = replace(node, data_port=cluster.data_port)
    if membership.supervised:
        membership = _serve(doors, node, cluster, membership, answer)
    store = doors.open_store(membership)
    try:
        _check_family(store, node)
        member.enrol(store, node)
        member.keep(doors, store, node, membership)
    finally:
        store.close()
    return node


def _check_family(store: Store, node: Node) -> None:
    """Raise InvalidAddress where the others could send no frames to this node's address."""
    others = {one.data_address.version for one in all_nodes(store)}
    if others and node.data_address.version not in others:
        version = min(others)
        raise InvalidAddress(
            f"the cluster's frames go by IPv{version}, and {node.data_address} is not of it",
            f"give an IPv{version} address of this host with --data-path-addr",
        )


def _kept(
    doors: Doors, node: Node, request: Request, cluster: Cluster, answer: Mapping[str, Any]
) -> Membership:
    """Write down what was got, and how the store is reached by it."""
    files = doors.files
    files.write(names.KEY, request.key)
    membership = Membership(
        cluster=cluster.id,
        node=node.id,
        endpoints=tuple(answer["endpoints"]),
        prefix=answer["prefix"],
        ca=files.write(names.CA, answer["ca"]),
        certificate=files.write(names.CERTIFICATE, answer["certificate"]),
        key=files.path(names.KEY),
    )
    if "keys" in answer:
        from netlib.cluster.certificates import Authority

        authority = Authority(answer["ca"], answer["keys"]["ca"])
        files.write(names.CA_KEY, authority.key)
        # Its daemon soon writes down whose certificates count no more.
        files.write(names.REVOKED, authority.revoke(()))
        files.write(names.TOKEN_KEY, answer["keys"]["token"])
        membership = replace(
            membership,
            listen=f"{bracketed(node.address)}:{node.join_port}",
            supervised="servers" in answer,
        )
    store = answer.get("store")
    if store is None:
        return membership

    def write(name: str, text: str) -> str:
        return files.write(name, text) if text else ""

    return replace(
        membership,
        ca=write(names.STORE_CA, store["ca"]),
        certificate=write(names.STORE_CERTIFICATE, store["certificate"]),
        key=write(names.STORE_KEY, store["key"]),
        user=store["user"],
        password=store["password"],
    )


def _serve(
    doors: Doors, node: Node, cluster: Cluster, membership: Membership, answer: Mapping[str, Any]
) -> Membership:
    """Run a further server of the store, until it has a vote; the membership with it."""
    server = Server(doors.files.folder)
    server.configure(
        server.flags(
            node=node.id, address=node.address, cluster=cluster.id, members=answer["servers"]
        )
    )
    mine = client_url(node.address)
    member.start(doors, replace(membership, endpoints=(mine,)))
    etcd = EtcdMembers(membership)
    # It has a vote when it has caught up, which the others judge.
    member.insist(lambda: etcd.promote(answer["member"]))
    return replace(membership, endpoints=(mine, *membership.endpoints))
