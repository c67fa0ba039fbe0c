"""A certificate authority of an instance's own, and the servers' certificates that it signs."""

import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from services.hosts import Hosts
from services.server import NODES

HOST = "localhost"
#: Of all nodes that there may be on this machine.
ADDRESSES = tuple(Hosts().address(f"node-{node}") for node in range(1, max(NODES) + 1))
VALID_DAYS = 365
RENEW_DAYS = 30


class Authority:
    """Makes certificates into a folder of mode 0700, its files 0600. Its key is kept nowhere: it signs one set."""

    def __init__(self, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named(name)
        until = datetime.now(UTC) + timedelta(days=VALID_DAYS)
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        self._certificate = (
            _builder(self._name, self._name, self._key.public_key(), until)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .sign(self._key, SHA256())
        )

    def write(self, folder: Path, *, host: str = HOST, addresses: Sequence[str] = ADDRESSES, until: datetime) -> None:
        """Write ca.pem, server.pem, server.key and both of the latter as server-with-key.pem.

        The server's certificate names `host` and `addresses` and is valid until `until` (UTC).
        """
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            _builder(_named(host), self._name, key.public_key(), until)
            .add_extension(_names(host, addresses), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, SHA256())
        )
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
        secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        public = certificate.public_bytes(Encoding.PEM)
        _write_private(folder / "server.key", secret)
        _write_private(folder / "server-with-key.pem", secret + public)
        _write_private(folder / "server.pem", public)
        _write_private(folder / "ca.pem", self._certificate.public_bytes(Encoding.PEM))


def make_certificates(folder: Path) -> bool:
    """Make an authority and a certificate for the servers here in `folder`, valid for a year.

    A set that is there, has all names and is valid for 30 more days stays; returns whether a new one was made.
    """
    if (folder / "ca.pem").exists() and (there := folder / "server.pem").exists():
        found = x509.load_pem_x509_certificate(there.read_bytes())
        has_all = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value == _names(HOST, ADDRESSES)
        if has_all and found.not_valid_after_utc - datetime.now(UTC) > timedelta(days=RENEW_DAYS):
            return False
    Authority("tickledger services").write(folder, until=datetime.now(UTC) + timedelta(days=VALID_DAYS))
    return True


def _names(host: str, addresses: Sequence[str]) -> x509.SubjectAlternativeName:
    # MariaDB's replica compares its primary's address with names of hosts alone.
    hosts = [x509.DNSName(one) for one in (host, *addresses)]
    return x509.SubjectAlternativeName([*hosts, *(x509.IPAddress(ip_address(one)) for one in addresses)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, until: datetime
) -> x509.CertificateBuilder:
    # An hour before: clocks differ; and an expired certificate must have begun before it ended.
    begin = min(datetime.now(UTC), until) - timedelta(hours=1)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(until)
    )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _write_private(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
