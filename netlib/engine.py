"""Where the parts meet: the state, the kernel and the drivers, and how an operation is run."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from functools import cached_property, partial, wraps
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from netlib import keys
from netlib.apply import apply, tear_down
from netlib.cluster.door import Meeting, OpenCluster, Taken
from netlib.driver import Capabilities, Driver
from netlib.errors import (
    AnotherFirewall,
    DriverError,
    LeftOver,
    NamespaceGone,
    NetError,
    NetWarning,
    NoSuchSandbox,
    PortTaken,
    StageFailed,
    StoreConflict,
    UnknownDriver,
    WrongHost,
)
from netlib.kernel import Kernel
from netlib.lock import OperationLock
from netlib.model import HOST, HostFacts, Network, Sandbox
from netlib.operation import Operation, Prepare
from netlib.plan import Ensure, Stage
from netlib.records import Identity, dump, load_as
from netlib.registry import Registry
from netlib.state import State
from netlib.store import Commit, Store, Unchanged
from netlib.turns import Gathered, Turns
from netlib.wiring import FirewallBase, Layer, Wiring

if TYPE_CHECKING:
    from netlib.cluster.state import ClusterState

P = ParamSpec("P")
R = TypeVar("R")
# Each failed try means that somebody else's commit succeeded, so this many only fail in a storm.
_TRIES = 1000
SHARED = "container:"
_DESCRIBED = 256  # networks whose wiring is remembered


class Engine:
    """Prepares from the state and the host's facts, then commits and applies.

    Safe to use from several threads where its store and kernel are.
    """

    def __init__(
        self,
        store: Store,
        kernel: Callable[[], Kernel],
        registry: Registry,
        lock: OperationLock,
        *,
        clock: Callable[[], float] = time.time,
        warn: Callable[[str], None] | None = None,
        committed: Callable[[Sequence[Sandbox]], None] | None = None,
        open_cluster: OpenCluster | None = None,
    ) -> None:
        self.state = State(store)
        self.meeting = Meeting(store, open_cluster)
        self._open_kernel = kernel
        self.registry = registry
        self.lock = lock
        self.clock = clock
        self.committed = committed
        self._turns, self.gathered = Turns(), Gathered()
        self._described: dict[str, tuple[Network, HostFacts, Wiring]] = {}
        self.warn = warn or _warn
        self.making = threading.Lock()
        self._identified = False
        self._settled = False

    @cached_property
    def kernel(self) -> Kernel:
        """The host, opened when it is first needed: lists need none."""
        return self._open_kernel()

    def forked(self) -> None:
        """In a forked child: the kernel is opened anew, and no lock is anybody's."""
        self.__dict__.pop("kernel", None)
        self._turns, self.gathered = Turns(), Gathered()
        self.making = threading.Lock()
        self._identified = False  # by a thread that may be elsewhere than the parent was

    @cached_property
    def home(self) -> int:
        """The inode of the host's network namespace."""
        return self.facts().netns

    @property
    def cluster(self) -> ClusterState:
        """The store where hosts meet, opened when it is first needed. Raises NotAMember."""
        self._turns.step_aside()
        return self.meeting.cluster

    # -- what verbs ask ---------------------------------------------------------------------------

    def driver(self, network: Network) -> Driver:
        """The driver of a network. UnknownDriver where its package was uninstalled since."""
        try:
            return self.registry.get(network.driver)
        except UnknownDriver as error:
            raise UnknownDriver(
                f"network {network.name} is of driver {network.driver!r}, which is not here now",
                f"install its package again, or run: net rm -f {network.name}",
            ) from error

    def capabilities(self, network: Network) -> Capabilities:
        """What a network's driver can; nothing where it was uninstalled, or is broken."""
        try:
            return self.driver(network).capabilities
        except (DriverError, UnknownDriver) as error:
            return Capabilities(publishes=False, why_not_published=error.message, names="none")

    def network_wiring(self, network: Network, host: HostFacts) -> Wiring:
        """What a network's driver describes for it; the same again for the same, for it is pure."""
        known = self._described.get(network.id)
        if known is None or known[0] is not network or known[1] != host:
            known = network, host, self.driver(network).network_wiring(network, host)
            if len(self._described) >= _DESCRIBED:
                self._described.clear()
            self._described[network.id] = known
        return known[2]

    def facts(self, devices: Iterable[str] = ()) -> HostFacts:
        """The host as it is now."""
        return self.kernel.facts(devices)

    def sandbox(self, reference: str | Sandbox) -> Sandbox:
        """The living sandbox that a reference names. NoSuchSandbox when there is none.

        Two references to one network namespace are one sandbox: the one that the state knows.
        `container:NAME` is the sandbox NAME itself, since to share its stack is to share all.
        """
        if isinstance(reference, str):
            # Who shares the stack of a sandbox that we know is that sandbox.
            reference = reference.removeprefix(SHARED)
        if isinstance(reference, Sandbox):
            found = reference
        elif ":" in reference:
            from netlib.kernel.sandboxes import resolve

            found = self.state.find_sandbox(reference) or resolve(reference, self.kernel)
            if not self.kernel.alive(found.netns):
                found = resolve(reference, self.kernel)
            known = self.state.sandbox_in(found.netns.inode)
            # Numbers of namespaces are given again, so it may be an earlier one's.
            if known is not None and self.kernel.alive(known.netns):
                found = known
        else:
            found = self.state.sandbox(reference)
        found = self.state.owner(found)
        if not self.kernel.alive(found.netns):
            raise NoSuchSandbox(
                f"sandbox {found.name} has ended: its network namespace is gone",
                "run: net gc",
            )
        return found

    # -- running ----------------------------------------------------------------------------------

    def run(self, prepare: Prepare[R]) -> R:
        """Prepare an operation, commit what it claims, apply its plan, commit that it is done.

        When somebody else's commit came first it is prepared again, which then meets the
        conflict as an error of its own, or does without what is taken now.
        """
        if not self.is_settled():  # nobody else is to be at the rules while they move
            with self.lock.alone():
                self.identify()
                self.settle()
        with self.lock.shared():
            return self.run_locked(prepare)

    def run_locked(self, prepare: Prepare[R]) -> R:
        """Likewise, for a caller that holds the operation lock."""
        self.identify()
        self.settle()
        with ExitStack() as held:
            with self.room():
                operation, taken = self._begin(prepare, held)
                if not operation.dismantles:
                    self.build(operation, taken)
            self.tell(operation.warnings)
            if operation.dismantles:  # mostly waits for the kernel, and many do that together
                self.dismantle(operation)
        return operation.result

    def room(self) -> AbstractContextManager[None]:
        """Where one thread works, see Turns.room."""
        return self._turns.room()

    def turn(self) -> AbstractContextManager[None]:
        """Where one thread prepares and commits, see Turns.turn."""
        return self._turns.turn()

    def _finish(self, operation: Operation[R]) -> None:
        if operation.done is not None:
            self.state.store.commit(operation.done)
        self.changed(*operation.sandboxes)

    def tell(self, warnings: Iterable[str]) -> None:
        """Warn whoever asked for something that is not done."""
        for text in warnings:
            self.warn(text)

    def changed(self, *boxes: Sandbox) -> None:
        """Have names resolve, and these sandboxes' files say, what the state says now."""
        if self.committed is not None:
            self.committed(boxes)

    def _begin(self, prepare: Prepare[R], held: ExitStack) -> tuple[Operation[R], Taken]:
        taken: Taken = []
        for attempt in range(_TRIES):
            try:
                with self.turn():
                    operation = prepare()
                    held.enter_context(self.lock.of(operation.holds))
                    self.meeting.take(operation.claims, taken)
                    if operation.begin is not None:
                        self.state.store.commit(operation.begin)
            except StoreConflict:
                self.meeting.take_back(taken)
                held.close()
                if attempt == _TRIES - 1:
                    raise
            except BaseException:
                self.meeting.take_back(taken)
                raise
            else:
                return operation, taken
            # Contenders that wait for different times stop meeting.
            time.sleep(os.urandom(1)[0] / 256 * min(0.001 * 2**attempt, 0.02))
        raise AssertionError("not reached")

    def dismantle(self, operation: Operation[R]) -> None:
        """Do what is left of an operation that was begun, and takes something away."""
        try:
            tear_down(operation.plan, self.kernel, operation.subject)
        except LeftOver:
            if not operation.insists:
                raise
        self.meeting.let_go(operation.releases)
        self._finish(operation)

    def build(self, operation: Operation[R], taken: Taken) -> None:
        """Do what is left of one that makes something, or take back all of it."""
        try:
            apply(
                operation.plan,
                self.kernel,
                confirm=partial(self._finish, operation),
                withdraw=partial(self._withdraw, operation, taken),
            )
        except StageFailed as failure:
            raise _plainly(failure) from failure

    def _withdraw(self, operation: Operation[R], taken: Taken) -> None:
        if operation.undo is not None:
            self.state.store.commit(operation.undo)
        self.meeting.take_back(taken)
        if operation.sandboxes:
            with suppress(NetError):  # what follows a change may be what failed
                self.changed(*operation.sandboxes)

    def identify(self, *, note: bool = True) -> None:
        """Refuse to act on a host that the state does not speak of; note a new boot.

        Without `note` nothing is written: for who only looks.
        """
        if self._identified:
            return
        facts = self.facts()
        here = Identity(netns=facts.netns, boot_id=facts.boot_id)
        mine = dump(here)
        record = self.state.store.get(keys.IDENTITY_KEY)
        if record is None or record.value != mine:
            known = load_as(Identity, record.value) if record else here
            if known.boot_id == here.boot_id and known.netns != here.netns:
                raise WrongHost(
                    "this state belongs to another network namespace "
                    f"(net:[{known.netns}]; this one is net:[{here.netns}])",
                    "run where it belongs, or choose another folder with --state-dir",
                )
            if not note:
                return
            unseen = Unchanged(keys.IDENTITY_KEY, record.revision if record else 0)
            try:
                self.state.store.commit(Commit(conditions=(unseen,), put={keys.IDENTITY_KEY: mine}))
            except StoreConflict:
                self.identify()  # somebody else wrote it just now: is it the same?
        self._identified = True

    def settle(self, *, act: bool = True) -> None:
        """Have the rules that are there where this one's go, or what is taken back would stay.

        Raises AnotherFirewall where they can't: none is to be used. Without `act` that is all.
        """
        if self.is_settled():
            return
        others = self.kernel.switches().elsewhere()
        if others and self.kernel.firewall == "none":
            raise AnotherFirewall(
                f"the rules of this host's networks are in {' and '.join(others)}, "
                "and would be left or lost without a firewall",
                "leave --firewall none out (or NETLIB_FIREWALL); to leave all filtering to "
                "somebody else from now on, run: net --firewall none repair",
            )
        if others and not act:
            return
        if others:  # whoever ensures the base takes them over
            self.kernel.do(Stage(Layer.BASE, HOST, (Ensure(FirewallBase()),)))
        self._settled = True

    def is_settled(self) -> bool:
        """Whether no other firewall has rules of ours: once it is so, it stays so."""
        self._settled = self._settled or not self.kernel.switches().elsewhere()
        return self._settled


def at_one_moment(
    prepare: Callable[Concatenate[Engine, P], R],
) -> Callable[Concatenate[Engine, P], R]:
    """Let a preparation read the state as it is at one moment, which many reads make cheaper.

    Not for who compares the state with the kernel: what came meanwhile would be nobody's.
    """

    @wraps(prepare)
    def reading(engine: Engine, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            with engine.state.store.reading():
                return prepare(engine, *args, **kwargs)
        except PortTaken:
            # Perhaps by our relay, for somebody whose claim is younger than that moment.
            return prepare(engine, *args, **kwargs)

    return reading


def _warn(text: str) -> None:
    import warnings

    warnings.warn(text, NetWarning, stacklevel=2)


def _plainly(failure: StageFailed) -> NetError:
    """The cause itself where all was taken back: the error that a caller can act on."""
    if not failure.undone:
        then = "then run: net repair"
        failure.hint = f"{failure.hint}; {then}" if failure.hint else then
        return failure
    if isinstance(failure.cause, NamespaceGone):
        failure.cause.hint = failure.cause.hint or "the sandbox ended meanwhile; run: net gc"
    return failure.cause
