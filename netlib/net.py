"""`Net`: the whole of netlib as one object. Its verbs live in `netlib.verbs`, a file each."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial, wraps
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar
from weakref import WeakSet

from netlib.engine import Engine
from netlib.errors import InvalidRequest
from netlib.kernel import Kernel
from netlib.keys import UNTOLD
from netlib.later import Later, when_used
from netlib.lock import OperationLock
from netlib.model import Sandbox
from netlib.operation import Operation
from netlib.plan import Plan, joined
from netlib.ports import PortRequest
from netlib.registry import Registry
from netlib.settings import STATE_FILE, Backend, firewall_backend, state_folder
from netlib.store import Commit, LeasedStore, Store

if TYPE_CHECKING:
    from netlib.cluster.door import OpenCluster
    from netlib.cluster.model import Membership
    from netlib.cluster.verbs import ClusterVerbs
    from netlib.dns.ask import Told
    from netlib.verbs import check as _check
    from netlib.verbs import connect as _connect
    from netlib.verbs import create as _create
    from netlib.verbs import disconnect as _disconnect
    from netlib.verbs import giving_way as _giving_way
    from netlib.verbs import host as _host
    from netlib.verbs import inspect as _inspect
    from netlib.verbs import overview as _overview
    from netlib.verbs import publish as _publish
    from netlib.verbs import remove as _remove
    from netlib.verbs import rules as _rules
    from netlib.verbs import sandboxes as _sandboxes
    from netlib.verbs import update as _update
else:  # a list needs few of them, and each loads others
    _check = Later("netlib.verbs.check")
    _connect = Later("netlib.verbs.connect")
    _create = Later("netlib.verbs.create")
    _disconnect = Later("netlib.verbs.disconnect")
    _giving_way = Later("netlib.verbs.giving_way")
    _host = Later("netlib.verbs.host")
    _inspect = Later("netlib.verbs.inspect")
    _overview = Later("netlib.verbs.overview")
    _publish = Later("netlib.verbs.publish")
    _remove = Later("netlib.verbs.remove")
    _rules = Later("netlib.verbs.rules")
    _sandboxes = Later("netlib.verbs.sandboxes")
    _update = Later("netlib.verbs.update")

P = ParamSpec("P")
R = TypeVar("R")


def _letters_refused(verb: Callable[..., object]) -> Callable[..., None]:
    """What raises InvalidRequest for a text where a verb means several, for that is iterable, too.

    It would be taken letter by letter: "80" published as 8 and 0.
    """
    names = verb.__code__.co_varnames[1 : verb.__code__.co_argcount]  # without the engine
    kinds: dict[str, str] = verb.__annotations__
    several = {name for name, kind in kinds.items() if kind.startswith("Iterable[")}

    def check(*args: object, **kwargs: object) -> None:
        for name, value in (*zip(names, args, strict=False), *kwargs.items()):
            if isinstance(value, str) and name in several:
                raise InvalidRequest(
                    f"{name} is the one text {value!r}, and several are meant",
                    f"write {name}=[{value!r}]",
                )

    return check


@when_used
def _verb(
    prepare: Callable[Concatenate[Engine, P], Operation[R]],
) -> Callable[Concatenate[Net, P], R]:
    """The method that prepares an operation and runs it."""
    check = _letters_refused(prepare)

    @wraps(prepare)
    def method(net: Net, /, *args: P.args, **kwargs: P.kwargs) -> R:
        check(*args, **kwargs)
        return net.engine.run(lambda: prepare(net.engine, *args, **kwargs))

    return method


@when_used
def _connecting(
    prepare: Callable[Concatenate[Engine, P], Operation[R]],
) -> Callable[Concatenate[Net, P], R]:
    """Likewise, for a verb that makes a network when it is the first to use it."""
    check = _letters_refused(prepare)

    @wraps(prepare)
    def method(net: Net, /, *args: P.args, **kwargs: P.kwargs) -> R:
        check(*args, **kwargs)
        network = args[0] if args else kwargs.get("network")
        asked: Any = kwargs
        for several in ("addresses", "publish"):
            if several in asked:
                asked[several] = tuple(asked[several])
        if isinstance(network, str):
            _create.ensure_made(net.engine, network, sparing=asked.get("addresses", ()))
        prepared = partial(prepare, net.engine, *args, **kwargs)
        if asked.get("publish"):
            _giving_way.give_way(net.engine, asked["publish"], prepared)
        return net.engine.run(prepared)

    return method


@when_used
def _publishing(
    prepare: Callable[[Engine, str | Sandbox, Iterable[str | PortRequest]], Operation[R]],
) -> Callable[[Net, str | Sandbox, Iterable[str | PortRequest]], R]:
    """Likewise, for the verb that may ask for a port that the resolver has."""
    check = _letters_refused(prepare)

    @wraps(prepare)
    def method(net: Net, sandbox: str | Sandbox, ports: Iterable[str | PortRequest]) -> R:
        check(sandbox, ports)
        asked = tuple(ports)
        prepared = partial(prepare, net.engine, sandbox, asked)
        _giving_way.give_way(net.engine, asked, prepared)
        return net.engine.run(prepared)

    return method


@when_used
def _updating(
    prepare: Callable[Concatenate[Engine, P], Operation[R]],
) -> Callable[Concatenate[Net, P], R]:
    """Likewise, but for networks of the cluster: those change without being made here."""
    check = _letters_refused(prepare)

    @wraps(prepare)
    def method(net: Net, /, *args: P.args, **kwargs: P.kwargs) -> R:
        check(*args, **kwargs)
        network = args[0] if args else kwargs.get("network")
        if isinstance(network, str):
            _create.ensure_built_in(net.engine, network)
        return net.engine.run(lambda: prepare(net.engine, *args, **kwargs))

    return method


@when_used
def _planned(
    prepare: Callable[Concatenate[Engine, P], Operation[R]],
) -> Callable[Concatenate[Plans, P], Plan]:
    """The method that prepares an operation and hands back its plan."""
    check = _letters_refused(prepare)

    @wraps(prepare)
    def method(plans: Plans, /, *args: P.args, **kwargs: P.kwargs) -> Plan:
        check(*args, **kwargs)
        return plans.taken(partial(prepare, plans.engine, *args, **kwargs))

    return method


@when_used
def _planned_connecting(
    prepare: Callable[Concatenate[Engine, P], Operation[R]],
) -> Callable[Concatenate[Plans, P], Plan]:
    """Likewise, with what makes room for the ports."""
    check = _letters_refused(prepare)

    @wraps(prepare)
    def method(plans: Plans, /, *args: P.args, **kwargs: P.kwargs) -> Plan:
        check(*args, **kwargs)
        asked: Any = kwargs
        asked["publish"] = tuple(asked.get("publish", ()))
        plan = plans.taken(partial(prepare, plans.engine, *args, **kwargs))
        return joined([plans.room(asked["publish"]), plan])

    return method


@when_used
def _planned_publishing(
    prepare: Callable[[Engine, str | Sandbox, Iterable[str | PortRequest]], Operation[R]],
) -> Callable[[Plans, str | Sandbox, Iterable[str | PortRequest]], Plan]:
    """Likewise."""
    check = _letters_refused(prepare)

    @wraps(prepare)
    def method(plans: Plans, sandbox: str | Sandbox, ports: Iterable[str | PortRequest]) -> Plan:
        check(sandbox, ports)
        asked = tuple(ports)
        plan = plans.taken(partial(prepare, plans.engine, sandbox, asked))
        return joined([plans.room(asked), plan])

    return method


@when_used
def _question(
    ask: Callable[Concatenate[Engine, P], R],
) -> Callable[Concatenate[Net | Plans, P], R]:
    """The method that reads, or that runs or plans several operations by itself."""
    check = _letters_refused(ask)

    @wraps(ask)
    def method(net: Net | Plans, /, *args: P.args, **kwargs: P.kwargs) -> R:
        check(*args, **kwargs)
        return ask(net.engine, *args, **kwargs)

    return method


class Plans:
    """The same verbs as `Net`'s, but each only hands back the plan of what it would do."""

    def __init__(self, engine: Engine, *, on_trial: bool = False) -> None:
        self.engine = engine
        self.on_trial = on_trial

    def in_sequence(self) -> Plans:
        """Plans each of which is made as if those before it had been done.

        On a copy of the state, in memory; of the kernel it is only asked.
        """
        from netlib.store.memory import MemoryStore

        engine = self.engine
        engine.identify(note=False)
        store = MemoryStore()
        records = engine.state.store.range(" ", "~")
        store.commit(Commit(put={record.key: record.value for record in records}))
        trial = Engine(
            store,
            lambda: engine.kernel,
            engine.registry,
            engine.lock,
            clock=engine.clock,
            warn=engine.warn,
        )
        return Plans(trial, on_trial=True)

    def taken(self, prepare: Callable[[], Operation[R]]) -> Plan:
        """The plan of an operation; on trial, as if it had been done from now on."""
        self.engine.identify(note=False)
        self.engine.settle(act=False)
        operation = prepare()
        self.engine.tell(operation.warnings)
        for commit in (operation.begin, operation.done):
            if self.on_trial and commit is not None:
                self.engine.state.store.commit(commit)
        return operation.plan

    def room(self, ports: Iterable[str | PortRequest]) -> Plan:
        """What makes room for ports that the resolver has.

        It comes first, but who asks for them is thought through before, while the resolver is
        known to be what has them.
        """
        return joined([self.taken(move) for move in _giving_way.moving(self.engine, ports)])

    create = _planned(_create.create)
    remove = _question(_remove.plan_removal)
    connect = _planned_connecting(_connect.connect)
    disconnect = _question(_disconnect.plan_disconnection)
    publish = _planned_publishing(_publish.publish)
    unpublish = _planned(_publish.unpublish)
    update = _planned(_update.update)
    prune = _question(_remove.plan_pruning)
    repair = _question(_check.plan_repair)
    collect_garbage = _question(_check.plan_garbage)
    remove_sandbox = _question(_sandboxes.plan_removal)
    set_forwarding = _question(_host.plan_forwarding)
    set_forward_policy = _question(_host.plan_forward_policy)


class Net:
    """Networks for sandboxes on this host.

    `state_dir` holds the state (NETLIB_STATE_DIR, else /var/lib/netlib); `firewall` is the
    backend (NETLIB_FIREWALL, else chosen). `store` and `kernel` replace the embedded file and
    Linux, as tests do, and `open_cluster` opens another store for a member of a cluster than etcd.
    `warn` is told what was asked for and is needless (else Python's
    warnings are, as NetWarning). Several processes and threads may use one state at once.

    >>> from netlib.kernel.fake import FakeKernel
    >>> from netlib.store.memory import MemoryStore
    >>> with Net(store=MemoryStore(), kernel=FakeKernel()) as net:
    ...     net.create("my-net", subnets=["192.0.2.0/24"]).subnets[0].gateway
    IPv4Address('192.0.2.1')
    """

    def __init__(
        self,
        state_dir: str | Path | None = None,
        *,
        firewall: Backend | None = None,
        store: Store | None = None,
        kernel: Kernel | None = None,
        registry: Registry | None = None,
        warn: Callable[[str], None] | None = None,
        open_cluster: OpenCluster | None = None,
    ) -> None:
        self.state_dir = state_folder(state_dir)
        self.firewall = firewall_backend(firewall)
        own_store = store or _open_store(self.state_dir)
        self._open_cluster = open_cluster or _open_cluster
        self._closing: list[Callable[[], None]] = [] if store else [own_store.close]
        self._closing_kernel: list[Callable[[], None]] = []
        self.engine = Engine(
            own_store,
            (lambda: kernel) if kernel else self._open_kernel,
            registry or Registry(),
            OperationLock(None if store else self.state_dir / "lock"),
            warn=warn,
            committed=None if kernel else self._follow,
            open_cluster=self._open_cluster,
        )
        self._closing.append(self.engine.meeting.close)
        self.plan = Plans(self.engine)
        _nets.add(self)

    def forked(self) -> None:
        """In a forked child: open the kernel anew when it is needed, once more.

        Its sockets are the parent's, too, and an answer is for whoever reads it first; its
        threads are not here. They are left as they are, for nobody here can end them.
        """
        self._closing_kernel.clear()
        self.engine.forked()

    def _open_kernel(self) -> Kernel:
        from netlib.dns.client import Resolver
        from netlib.kernel.opening import open_kernel
        from netlib.name_servers import NameServers
        from netlib.relay.door import RelayDoor

        relays = RelayDoor(self.state_dir)
        self._closing_kernel.append(relays.close)
        kernel = open_kernel(
            self.firewall,
            relays=relays,
            names=NameServers(Resolver(self.state_dir)),
        )
        self._closing_kernel.append(kernel.close)
        return kernel

    def _follow(self, boxes: Sequence[Sandbox]) -> None:
        """What follows a change: the names that the resolver serves, and sandboxes' files."""
        from netlib.dns.client import Resolver

        try:
            Resolver(self.state_dir).tell()
        finally:
            # A CNI runtime writes such files itself.
            own = [box for box in boxes if box.kind != "cni"]
            if own:
                from netlib.sandbox_files import refresh_all

                refresh_all(self.engine.state, self.state_dir, own)

    @property
    def cluster(self) -> ClusterVerbs:
        """Membership of a cluster of hosts: make one, join it, leave it, see who is in it."""
        from netlib.cluster.doors import Doors
        from netlib.cluster.verbs import ClusterVerbs

        return ClusterVerbs(Doors(self.engine, self.state_dir, self._open_cluster))

    def files_of(self, sandbox: str) -> Path:
        """The folder with a sandbox's resolv.conf, hosts and hostname, to be mounted in it."""
        from netlib.sandbox_files import folder_of

        return folder_of(self.state_dir, self.engine.state.sandbox(sandbox).name)

    def ask(self, name: str, type_: str = "", *, sandbox: str) -> Told:
        """What a sandbox is told when it asks its name servers for a name, or for an address's.

        Without a type: A for a name, PTR for an address.
        Raises NoSuchSandbox, InvalidName, InvalidOption, NamespaceGone, NoAnswer.

        Example:  net dns query db --from web
        """
        from netlib.dns.ask import query
        from netlib.sandbox_files import servers_of

        box = self.engine.sandbox(sandbox)
        servers = servers_of(self.engine.state, box)
        return query(name, type_, servers=servers, path=box.netns.path, inode=box.netns.inode)

    def resolver_stats(self) -> dict[str, Any] | None:
        """What the resolver was asked and answered since it started; None where none runs.

        Example:  net dns stats
        """
        from netlib.dns.client import Resolver

        return Resolver(self.state_dir).stats()

    def resolver_log(self) -> Iterator[dict[str, Any]]:
        """Each query from now on: who asks for what name and type, and what became of it.

        Example:  net dns log
        """
        from netlib.dns.client import Resolver

        return Resolver(self.state_dir).log()

    def close(self) -> None:
        """Give back files, sockets and threads. What was made stays."""
        for closing in (self._closing_kernel, self._closing):
            while closing:
                closing.pop()()

    def __enter__(self) -> Net:
        """The object itself; leaving the block closes it."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    create = _verb(_create.create)
    connect = _connecting(_connect.connect)
    publish = _publishing(_publish.publish)
    unpublish = _verb(_publish.unpublish)
    update = _updating(_update.update)

    disconnect = _question(_disconnect.disconnect)
    remove = _question(_remove.remove)
    prune = _question(_remove.prune)

    create_sandbox = _question(_sandboxes.create_sandbox)
    register_sandbox = _question(_sandboxes.register_sandbox)
    remove_sandbox = _question(_sandboxes.remove_sandbox)

    listing = _question(_overview.listing)
    status = _question(_overview.status)
    ports = _question(_overview.ports)
    facts = _question(_rules.facts)
    networks = _question(_inspect.networks)
    inspect = _question(_inspect.inspect)
    draw = _question(_inspect.draw)
    link_environment = _question(_inspect.link_environment)
    sandboxes = _question(_inspect.sandboxes)
    endpoints = _question(_inspect.endpoints)
    check = _question(_check.check)
    repair = _question(_check.repair)
    collect_garbage = _question(_check.collect_garbage)

    host_status = _question(_host.host_status)
    set_forwarding = _question(_host.set_forwarding)
    set_forward_policy = _question(_host.set_forward_policy)


_nets: WeakSet[Net] = WeakSet()  # those of this process, for its forked children


def _forked() -> None:
    for net in list(_nets):
        net.forked()


os.register_at_fork(after_in_child=_forked)


def _open_cluster(membership: Membership) -> LeasedStore:
    from netlib.cluster.opening import open_store  # loads what speaks to etcd

    return open_store(membership)


def _open_store(folder: Path) -> Store:
    from netlib.store.sqlite import SqliteStore

    return SqliteStore(folder / STATE_FILE, untold=UNTOLD)
