"""What an authority signs: what it decides itself, whatever it is asked for."""

from __future__ import annotations

import base64
import socket
import ssl
import subprocess
import sys
from ipaddress import ip_address
from pathlib import Path
from threading import Thread

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from netlib.cluster.asking import MANAGER_NAME
from netlib.cluster.certificates import Authority, Request
from netlib.cluster.model import Role
from netlib.errors import InvalidRequest

CLUSTER, NODE = "c1" * 32, "a0" * 32
AUTHORITY = Authority.new(CLUSTER)


def context(folder: Path, purpose: int, role: Role, authority: Authority) -> ssl.SSLContext:
    """TLS as a node of a role uses it, that trusts AUTHORITY."""
    request = Request.new(NODE)
    files = {"crt": authority.sign(request.text, NODE, role, [ip_address("127.0.0.1")])}
    files["key"] = request.key
    for name, text in files.items():
        (folder / f"{role}.{name}").write_text(text)
    made = ssl.SSLContext(purpose)
    made.load_cert_chain(folder / f"{role}.crt", folder / f"{role}.key")
    made.load_verify_locations(cadata=AUTHORITY.certificate)
    made.verify_mode = ssl.CERT_REQUIRED
    return made


def shaken(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> bool:
    """Whether both take each other for what they say."""
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            with server.wrap_socket(theirs, server_side=True) as secure:
                secure.sendall(b"!")
        except OSError:
            theirs.close()

    thread = Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(ours, server_hostname=name) as secure:
            return secure.recv(1) == b"!"  # a server refuses clients after their handshake
    except OSError:
        return False
    finally:
        ours.close()
        thread.join(10)


@pytest.mark.parametrize("name", [MANAGER_NAME, "127.0.0.1"])
def test_a_manager_serves_and_any_node_is_a_client(tmp_path: Path, name: str) -> None:
    """By the managers' name, for who joins, and by its address, for etcd's clients."""
    server = context(tmp_path, ssl.PROTOCOL_TLS_SERVER, "manager", AUTHORITY)
    for role in ("worker", "manager"):
        assert shaken(server, context(tmp_path, ssl.PROTOCOL_TLS_CLIENT, role, AUTHORITY), name)


def test_a_worker_can_not_pass_for_a_manager(tmp_path: Path) -> None:
    """It gets neither the name nor the use."""
    server = context(tmp_path, ssl.PROTOCOL_TLS_SERVER, "worker", AUTHORITY)
    client = context(tmp_path, ssl.PROTOCOL_TLS_CLIENT, "manager", AUTHORITY)

    assert not shaken(server, client, MANAGER_NAME)
    client.check_hostname = False
    assert not shaken(server, client, MANAGER_NAME)


def test_another_cluster_s_node_is_a_stranger(tmp_path: Path) -> None:
    """Also with the same name and ids."""
    other = Authority.new(CLUSTER)
    server = context(tmp_path, ssl.PROTOCOL_TLS_SERVER, "manager", AUTHORITY)

    client = context(tmp_path, ssl.PROTOCOL_TLS_CLIENT, "worker", other)
    assert not shaken(server, client, MANAGER_NAME)


def test_a_revoked_node_is_a_stranger_from_then_on(tmp_path: Path) -> None:
    """The list names its certificate, and no other node's."""
    client = context(tmp_path, ssl.PROTOCOL_TLS_CLIENT, "worker", AUTHORITY)
    for revoked, served in (((), True), (("b1" * 32,), True), ((NODE, "b1" * 32), False)):
        server = context(tmp_path, ssl.PROTOCOL_TLS_SERVER, "manager", AUTHORITY)
        server.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        (tmp_path / "crl").write_text(AUTHORITY.revoke(revoked))
        server.load_verify_locations(tmp_path / "crl")
        assert shaken(server, client, MANAGER_NAME) is served


def test_a_request_s_own_wishes_do_not_count() -> None:
    """It names another node; the certificate names the one that was let in."""
    signed = AUTHORITY.sign(Request.new("b1" * 32).text, NODE, "worker")
    body = base64.b64decode("".join(signed.splitlines()[1:-1]))

    assert NODE.encode() in body
    assert b"b1b1" not in body


@given(st.data())
def test_an_altered_request_is_refused(data: st.DataObject) -> None:
    """Whoever alters it does not have the key, or it can't be read any more."""
    lines = REQUEST.splitlines()
    packed = bytearray(base64.b64decode("".join(lines[1:-1])))
    # How many bits of the signature's last byte do not count (X.690 section 8.6.2) stands before
    # it; where those are zero it may be any number of them, and the request is as good.
    unused = len(packed) - len(x509.load_pem_x509_csr(REQUEST.encode()).signature) - 1
    at = data.draw(st.integers(0, len(packed) - 1).filter(lambda at: at != unused))
    packed[at] ^= data.draw(st.integers(1, 255))
    text = "\n".join([lines[0], base64.b64encode(packed).decode(), lines[-1], ""])

    with pytest.raises(InvalidRequest):
        AUTHORITY.sign(text, NODE, "worker")


@given(st.text() | st.binary().map(lambda b: base64.b64encode(b).decode()))
def test_any_text_is_a_request_or_refused(text: str) -> None:
    """A stranger may send anything."""
    wrapped = f"-----BEGIN CERTIFICATE REQUEST-----\n{text}\n-----END CERTIFICATE REQUEST-----\n"
    for candidate in (text, wrapped):
        with pytest.raises(InvalidRequest):
            AUTHORITY.sign(candidate, NODE, "worker")


REQUEST = Request.new(NODE).text


def test_without_the_package_it_is_said_what_to_install() -> None:
    """Not an ImportError: hosts that are in no cluster need none of it."""
    program = (
        "import sys; sys.modules['cryptography'] = None\n"
        "from netlib.errors import Unsupported\n"
        "try:\n    import netlib.cluster.certificates\n"
        "except Unsupported as error:\n    print(error.hint)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=True
    )
    assert "contnet[cluster]" in done.stdout
    assert "python3-cryptography" in done.stdout
