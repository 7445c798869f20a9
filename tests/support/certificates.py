"""A certificate authority of a test's own, and the contexts of servers that show its certificates."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Valid = tuple[dt.timedelta, dt.timedelta]  # from and until, both from now
DAY = dt.timedelta(days=1)
VALID = (-DAY / 24, 2 * DAY)
EXPIRED = (-3 * DAY, -DAY)
NOT_YET_VALID = (DAY, 3 * DAY)


class Authority:
    """A certificate authority that lives in a directory of the test."""

    def __init__(self, directory: Path, name: str):
        self.directory, self.name = directory, name
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._signed(_named(name), self.key, ca=True, alternative=None, valid=VALID)
        self.path = self._write(f"{name}.pem", self.certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str, *hosts: str, valid: Valid = VALID) -> tuple[Path, Path]:
        """Return the certificate and key of *name*, for *hosts*, *valid* from and until so long from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._signed(_named(name), key, ca=False, alternative=_alternative(hosts), valid=valid)
        return self._pair(name, certificate, key)

    def signed_by_itself(self, name: str, *hosts: str) -> tuple[Path, Path]:
        """Return a certificate and key that no authority has signed."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_named(name), _named(name), key.public_key(), VALID)
        return self._pair(
            name, builder.add_extension(_alternative(hosts), critical=False).sign(key, hashes.SHA256()), key
        )

    def _signed(self, subject, key, *, ca, alternative, valid):
        builder = (
            _builder(subject, _named(self.name), key.public_key(), valid)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )
        if alternative:
            builder = builder.add_extension(alternative, critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def _pair(self, name, certificate, key) -> tuple[Path, Path]:
        secret = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        return self._write(f"{name}.crt", pem), self._write(f"{name}.key", secret)

    def _write(self, name: str, data: bytes) -> Path:
        path = self.directory / name
        path.write_bytes(data)
        return path


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _alternative(hosts: tuple[str, ...]) -> x509.SubjectAlternativeName | None:
    names = [x509.IPAddress(ipaddress.ip_address(h)) if h[0].isdigit() else x509.DNSName(h) for h in hosts]
    return x509.SubjectAlternativeName(names) if names else None


def _builder(subject, issuer, key, valid: Valid) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + valid[0])
        .not_valid_after(now + valid[1])
    )


def server_context(certificate: tuple[Path, Path], *, client_authority: Path | None = None) -> ssl.SSLContext:
    """Return what a server speaks TLS with; it wants a certificate of *client_authority* where one is named."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    if client_authority:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(client_authority)
    return context
