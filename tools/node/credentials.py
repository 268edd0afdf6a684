"""Certificates and tokens of one node: made anew at each start, readable by root alone."""

import secrets
from dataclasses import dataclass
from pathlib import Path

import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from .layout import Addresses, Layout
from .namespaces import NODE_NAME

# user name -> its groups: what Kubernetes' own RBAC rules expect of each part.
USERS = {
    "admin": "system:masters",
    "system:kube-controller-manager": "",
    "system:kube-scheduler": "",
    "system:kube-proxy": "",
    f"system:node:{NODE_NAME}": "system:nodes",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Where the certificates lie, and each user's token."""

    folder: Path
    tokens: dict[str, str]

    @property
    def authority(self) -> Path:
        return self.folder / "ca.pem"


def make(layout: Layout, addresses: Addresses) -> Credentials:
    """Write a new authority, the API server's and the kubelet's certificates, and the tokens."""
    folder = layout.secrets
    folder.mkdir(parents=True, mode=0o700)
    authority = trustme.CA(organization_name="moe-serve test node")
    _write(folder / "ca.pem", authority.cert_pem.bytes())
    certificates = {
        "apiserver": authority.issue_cert(
            addresses.node,
            addresses.api_service,
            "127.0.0.1",
            "localhost",
            *("kubernetes", "kubernetes.default", "kubernetes.default.svc"),
            "kubernetes.default.svc.cluster.local",
        ),
        "apiserver-to-kubelet": authority.issue_cert(
            "apiserver.internal",
            common_name="kube-apiserver-kubelet-client",
            organization_name="system:masters",
        ),
        "kubelet": authority.issue_cert(addresses.node, NODE_NAME, common_name=NODE_NAME),
    }
    for name, certificate in certificates.items():
        chain = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
        _write(folder / f"{name}.pem", chain)
        _write(folder / f"{name}-key.pem", certificate.private_key_pem.bytes())
    _write(folder / "service-accounts-key.pem", _signing_key())
    tokens = {user: secrets.token_hex(24) for user in USERS}
    lines = [f'{tokens[user]},{user},{user},"{groups}"\n' for user, groups in USERS.items()]
    _write(folder / "tokens.csv", "".join(lines).encode())
    return Credentials(folder=folder, tokens=tokens)


def _signing_key() -> bytes:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )


def _write(path: Path, content: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(content)
