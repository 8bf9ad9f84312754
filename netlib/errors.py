"""The error tree: what happened, to what, and what to do next.

A class fixes the exit status of the command line, the code of a CNI result (CNI spec 1.1.0,
"Error") and whether trying again can help, so that no caller has to read a message.
"""

from __future__ import annotations


class NetWarning(UserWarning):
    """Something that was asked for is not done, since it makes no difference."""


class NetError(Exception):
    """Something netlib was asked for could not be done.

    `may_be_done`: it was all the same, perhaps, for only the answer was lost.
    """

    exit_status = 1
    cni_code = 100
    retryable = False
    may_be_done = False

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    @property
    def code(self) -> str:
        """The class's name in kebab case, stable for programs: `port-taken`."""
        name = type(self).__name__
        return "".join(f"-{c.lower()}" if c.isupper() else c for c in name).lstrip("-")

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


# -- asked for something impossible -----------------------------------------------------------


class InvalidRequest(NetError):
    """What was asked for makes no sense, whatever the state of the host."""

    exit_status = 2
    cni_code = 7


class InvalidName(InvalidRequest):
    """A name breaks the rules for names."""


class InvalidOption(InvalidRequest):
    """An option is unknown, or its value is not one that it takes."""


class InvalidAddress(InvalidRequest):
    """An address, prefix or range can not be what it is asked to be."""


class NotLocal(InvalidAddress):
    """An address that must be the host's own is not, or it can't be told which one is meant."""


class InvalidPort(InvalidRequest):
    """A port specification can not be read."""


class Unsupported(InvalidRequest):
    """The driver, kernel or host does not offer what was asked for."""


# -- no such thing ----------------------------------------------------------------------------


class NotFound(NetError):
    """A thing that was named does not exist."""

    exit_status = 3
    cni_code = 7  # 3 is for containers alone: nothing of those has to be cleaned up then


class NoSuchNetwork(NotFound):
    """No network has this name, id or id prefix."""


class NoSuchSandbox(NotFound):
    """No sandbox has this name, or its network namespace is gone."""

    cni_code = 3


class NotConnected(NotFound):
    """The sandbox has no endpoint on the network."""

    cni_code = 3


class NotPublished(NotFound):
    """The sandbox does not publish this port."""


class NoSuchDevice(NotFound):
    """The host has no network device of this name."""


class UnknownDriver(NotFound):
    """No driver of this name is installed."""


class NoSuchLab(NotFound):
    """No lab has this name."""


class NoSuchNode(NotFound):
    """No node of the cluster has this name, id or id prefix."""


class NotAMember(NotFound):
    """The host belongs to no cluster, or to none any more."""


class EtcdMissing(NotFound):
    """The program etcd, which keeps a cluster's state, is not installed."""


class NoSuchCommand(NotFound):
    """A sandbox was to run a command that does not exist. The status is a shell's for it."""

    exit_status = 127


# -- in the way of another --------------------------------------------------------------------


class Conflict(NetError):
    """What was asked for clashes with what exists."""

    exit_status = 4
    cni_code = 101


class NameTaken(Conflict):
    """Another thing has this name."""


class AlreadyConnected(Conflict):
    """The sandbox has an endpoint on the network."""

    cni_code = 4


class AddressTaken(Conflict):
    """Another endpoint, or the network itself, holds this address."""


class PortTaken(Conflict):
    """Another endpoint, or a process of the host, holds this host port."""

    cni_code = 102


class PoolOverlap(Conflict):
    """A prefix overlaps another network's, or one that the host can route to."""


class SingleNetwork(Conflict):
    """There can be one network of this kind on a host, and it exists."""


class BuiltInNetwork(Conflict):
    """A network that is always there can't be removed, nor made."""


class InUse(Conflict):
    """A thing can not go while others use it."""


class LastManager(InUse):
    """The only manager of a cluster can not go: the cluster would end with it."""


class NodeAlive(InUse):
    """A node that is up can not be removed by others."""


class AlreadyMember(Conflict):
    """The host belongs to a cluster."""


class ClusterExists(Conflict):
    """The store that a new cluster was to be kept in has one."""


class NotAttachable(Conflict):
    """A network of the cluster is for services only: nobody joins it by hand."""


class NodePaused(Conflict):
    """A node takes no new endpoints: its availability is pause or drain."""


class NotOurs(Conflict):
    """What was to be taken back was done by somebody else."""


class AnotherFirewall(Conflict):
    """The rules of a host's networks are in another firewall than the one that is asked for."""


class RouteTaken(Conflict):
    """Another endpoint of the sandbox has a route to the same destination."""


class InterfaceTaken(Conflict):
    """A network device of this name is there, and it is not ours."""

    cni_code = 4


# -- nothing left -----------------------------------------------------------------------------


class Exhausted(NetError):
    """A pool has nothing left to give."""

    exit_status = 5
    cni_code = 103
    retryable = True


# -- not permitted ----------------------------------------------------------------------------


class NotPermitted(NetError):
    """The caller lacks a right that this needs."""

    exit_status = 6
    cni_code = 104


class CommandRefused(NotPermitted):
    """A sandbox was to run a file that can not be executed. The status is a shell's for it."""

    exit_status = 126


class WrongToken(NotPermitted):
    """A token to join by is not one of that cluster, or it was rotated away."""


class ExpiredToken(NotPermitted):
    """A token to join by is too old."""


# -- the doors --------------------------------------------------------------------------------


class KernelError(NetError):
    """Linux, or a program that speaks to it for us, refused."""

    cni_code = 105


class AlreadyThere(KernelError):
    """What was to be made exists."""


class NotThere(KernelError):
    """What was to be changed or removed does not exist."""


class NamespaceGone(NotThere):
    """A network namespace ended, or its path now names another one."""


class PortHeld(KernelError):
    """A process of the host listens on a port that a relay was to listen on."""

    exit_status = 4
    cni_code = 102


class StageFailed(KernelError):
    """A stage of a plan failed; `undone` says whether all that was done was taken back.

    To callers it is what its cause is: the same code, exit status and chance of another try.
    """

    def __init__(self, cause: NetError, *, undone: bool = True) -> None:
        super().__init__(cause.message, cause.hint)
        self.cause = cause
        self.undone = undone
        self.exit_status = cause.exit_status
        self.cni_code = cause.cni_code
        self.retryable = cause.retryable

    @property
    def code(self) -> str:
        """The cause's code."""
        return self.cause.code


class StoreError(NetError):
    """The state could not be read or written."""

    exit_status = 7
    cni_code = 106
    retryable = True


class StoreConflict(StoreError):
    """A commit's condition did not hold: somebody else was first. `key` is the condition's."""

    def __init__(self, key: str) -> None:
        super().__init__(f"the state changed meanwhile at {key}", "try again")
        self.key = key


class StoreUnavailable(StoreError):
    """A server that keeps state for many hosts can not be reached, or can not serve now."""


class CommitUnknown(StoreError):
    """A server was lost before it answered, and whether it did what was asked is not known."""

    retryable = False


class LeaseLost(StoreError):
    """A lease ended, and with it all that was kept by it."""

    retryable = False

    def __init__(self, lease: int) -> None:
        super().__init__(
            f"lease {lease:x} has ended, and what it kept is gone",
            "take a new one, and put again what it kept",
        )
        self.lease = lease


class AgentDown(StoreError):
    """This host's agent is not alive, without which nothing of it can stand in the cluster."""


class WrongHost(StoreError):
    """The state speaks of another network namespace than the caller's."""

    retryable = False


class ManagerUnreachable(StoreError):
    """No manager of a cluster answers, or what answers is none."""


class ClockSkew(NetError):
    """The clocks of two hosts differ by more than certificates and tokens can bear."""


class DriverError(NetError):
    """A driver broke its contract, or could not be loaded."""

    cni_code = 107


class ResolverDown(NetError):
    """The DNS resolver could not be started, or does not answer its clients."""

    retryable = True


class NoAnswer(NetError):
    """None of the name servers that were asked answered."""

    retryable = True


class DaemonLost(NetError):
    """The daemon ended before it answered, and what it did is not known."""


class DaemonStuck(NetError):
    """A daemon is there and answers nothing: it was stopped, or is wedged."""

    cni_code = 11
    retryable = True

    def __init__(self, folder: str, pid: int, *, begun: bool = False) -> None:
        # systemd listens for those that it starts; 0: it can't be seen from this pid namespace.
        end = f"let it go on (kill -CONT {pid}) or end it (kill -9 {pid})"
        hint = end if pid > 1 else "have it restarted (systemctl restart netlib)"
        super().__init__(
            f"the daemon of {folder} {'began this and' if begun else 'takes no requests: it'} "
            "stands still",
            f"{hint}, then {'look what came of it: net check' if begun else 'try again'}",
        )


class LockStuck(NetError):
    """Who has a lock that this needs stands still: it was stopped."""

    cni_code = 11
    retryable = True

    def __init__(self, path: str, pid: int, name: str) -> None:
        super().__init__(
            f"process {pid} ({name}) was stopped while it had {path} locked",
            f"let it go on (kill -CONT {pid}) or end it (kill -9 {pid}), then try again",
        )


class LabFailed(NetError):
    """A lab's story told something that is not so on this machine."""


class LeftOver(NetError):
    """A removal did what it could; `causes` says what is still there and why."""

    def __init__(self, subject: str, causes: list[NetError]) -> None:
        lines = "; ".join(cause.message for cause in causes)
        super().__init__(
            f"{len(causes)} parts of {subject} could not be removed: {lines}",
            "put right what is named, then run: net repair",
        )
        self.causes = causes


def to_document(error: NetError) -> dict[str, object]:
    """An error as JSON values: what the command line prints, and what another process is told."""
    return {"code": error.code, "message": error.message, "hint": error.hint}


def from_document(document: dict[str, object]) -> NetError:
    """The error that another process met, of its class: message, hint and exit status are right.

    What else a class has of its own is not carried over. A class of somebody else's becomes
    NetError.
    """
    name = "".join(part.capitalize() for part in str(document["code"]).split("-"))
    shape = globals().get(name)
    if not (isinstance(shape, type) and issubclass(shape, NetError)):
        shape = NetError
    met = shape.__new__(shape)  # constructors differ, and the message is made already
    NetError.__init__(met, str(document["message"]), str(document.get("hint", "")))
    return met
