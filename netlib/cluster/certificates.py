"""Certificates of a cluster (RFC 5280): its own authority, and what each node gets signed.

All is PEM text. What a certificate says is decided by who signs it: of a request only the
public key and the proof of owning the private one are taken. Import this module when it is
needed: that raises Unsupported where the package `cryptography` is not installed.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable

from netlib.cluster.asking import MANAGER_NAME
from netlib.cluster.model import Role
from netlib.errors import InvalidRequest, Unsupported
from netlib.model import IPAddress
from netlib.values import dataclass

try:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        load_pem_private_key,
    )
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
except ImportError as missing:
    raise Unsupported(
        "certificates are made with the package cryptography, which is not installed",
        "run: pip install 'contnet[cluster]', or: apt-get install python3-cryptography",
    ) from missing

AUTHORITY_DAYS = 20 * 365
NODE_DAYS = 10 * 365
# Clocks may differ by less (asking.MOST_SKEW_SECONDS): what is new is valid everywhere.
BACKDATED_SECONDS = 600


@dataclass(frozen=True, slots=True)
class Authority:
    """What signs: its certificate and its private key."""

    certificate: str
    key: str

    @classmethod
    def new(cls, cluster: str) -> Authority:
        """A cluster's own."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name("netlib cluster", cluster)
        builder = (
            _builder(name, name, key.public_key(), AUTHORITY_DAYS)
            .serial_number(x509.random_serial_number())
            # It signs nodes, and no further authorities.
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        )
        return cls(_pem(builder.sign(key, SHA256())), _key_pem(key))

    def sign(self, request: str, node: str, role: Role, addresses: Iterable[IPAddress] = ()) -> str:
        """A certificate for the key of a request (PKCS #10): node `node`'s, of a role.

        Every node is a client. A manager is a server as well, of that name and at `addresses`.
        Raises InvalidRequest.
        """
        key = _key_of(request)
        above = x509.load_pem_x509_certificate(self.certificate.encode())
        signer = self._signer()
        uses = [ExtendedKeyUsageOID.CLIENT_AUTH]
        names: list[x509.GeneralName] = [x509.DNSName(f"{node[:_LABEL]}.node.netlib")]
        if role == "manager":
            uses.append(ExtendedKeyUsageOID.SERVER_AUTH)
            names.append(x509.DNSName(MANAGER_NAME))
            names += [x509.IPAddress(address) for address in addresses]
        builder = (
            _builder(_name(role, node), above.subject, key, NODE_DAYS)
            .serial_number(_serial(node))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()),
                critical=False,
            )
        )
        return _pem(builder.sign(signer, SHA256()))

    def revoke(self, nodes: Iterable[str]) -> str:
        """The list of revoked certificates (RFC 5280 section 5): those of these nodes."""
        now = datetime.datetime.now(datetime.UTC)
        above = x509.load_pem_x509_certificate(self.certificate.encode())
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(above.subject)
            .last_update(now - datetime.timedelta(seconds=BACKDATED_SECONDS))
            .next_update(now + datetime.timedelta(days=NODE_DAYS))
        )
        for node in nodes:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(_serial(node))
                .revocation_date(now)
                .build()
            )
        return builder.sign(self._signer(), SHA256()).public_bytes(Encoding.PEM).decode()

    def _signer(self) -> ec.EllipticCurvePrivateKey:
        key = load_pem_private_key(self.key.encode(), password=None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return key


@dataclass(frozen=True, slots=True)
class Request:
    """A private key that was just made, and the request to sign its public half."""

    key: str
    text: str

    @classmethod
    def new(cls, node: str) -> Request:
        """A node's."""
        key = ec.generate_private_key(ec.SECP256R1())
        asked = x509.CertificateSigningRequestBuilder().subject_name(_name("node", node))
        return cls(_key_pem(key), _pem(asked.sign(key, SHA256())))


_LABEL = 63  # the longest part of a name (RFC 1035 section 2.3.4)


def _serial(node: str) -> int:
    """The serial number of a node's certificate: of its id, which is random, 19 bytes.

    20 are the most, without a sign (RFC 5280 section 4.1.2.2). So who knows the node can revoke it.
    """
    return int(node[:38], 16)


def _key_of(request: str) -> ec.EllipticCurvePublicKey:
    """The public key of a request that was made by who has the private one."""
    try:
        asked = x509.load_pem_x509_csr(request.encode())
        key = asked.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(
            key.curve, ec.SECP256R1
        ):
            raise ValueError("its key is not of the curve P-256")
        if not asked.is_signature_valid:
            raise ValueError("it is not signed by its own key")
    except Exception as error:  # a request is a stranger's bytes, and parsers have many ways
        why = str(error).partition(".")[0]
        raise InvalidRequest(f"the certificate request can't be used: {why}") from error
    return key


def _builder(
    name: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key)
        .not_valid_before(now - datetime.timedelta(seconds=BACKDATED_SECONDS))
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _name(unit: str, common: str) -> x509.Name:
    """A subject. A common name has 64 characters at most (RFC 5280, upper bounds)."""
    parts = ((NameOID.ORGANIZATIONAL_UNIT_NAME, unit), (NameOID.COMMON_NAME, common))
    return x509.Name([x509.NameAttribute(oid, text) for oid, text in parts])


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _pem(signed: x509.Certificate | x509.CertificateSigningRequest) -> str:
    return signed.public_bytes(Encoding.PEM).decode()
