"""C19: what the CA hands out is not the certificate that was ordered, or none at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding

from tests.prove.fault_scenarios.findings import Findings, Scenario
from tests.prove.fault_scenarios.stage import ZONE, Stage, stage
from tests.servers.ca_proxy import CaProxy, Passing
from tests.servers.https import Answer, ca_bundle_pem

MEGABYTE = 1_000_000
MOST_MEGABYTES = 10.0  # up to 6 are seen; 36, where the 5 MB are read to their end
MOST_DOWNLOADS = 6
PRIVATE_KEY = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIA==\n-----END PRIVATE KEY-----\n"

Spoil = Callable[[str, str], str]
"""What is handed out instead of a chain (PEM) for a name."""


def another_key(_chain_pem: str, dns_name: str) -> str:
    return _signed(ec.generate_private_key(ec.SECP256R1()).public_key(), [dns_name])


def another_name(chain_pem: str, dns_name: str) -> str:
    return _signed(_leaf_key(chain_pem), [f"not-{dns_name}"])


def one_name_more(chain_pem: str, dns_name: str) -> str:
    return _signed(_leaf_key(chain_pem), [dns_name, f"not-{dns_name}"])


def a_foreign_issuer(chain_pem: str, _dns_name: str) -> str:
    (leaf, *_) = x509.load_pem_x509_certificates(chain_pem.encode())
    return leaf.public_bytes(Encoding.PEM).decode() + ca_bundle_pem()


def five_megabytes(chain_pem: str, _dns_name: str) -> str:
    """The right leaf, and a root that signs itself again and again."""
    return chain_pem + ca_bundle_pem() * (5 * MEGABYTE // len(ca_bundle_pem()))


WRONG: Mapping[str, Spoil] = {
    "another key": another_key,
    "another name": another_name,
    "one name more": one_name_more,
    "a foreign issuer": a_foreign_issuer,
}
GARBAGE: Mapping[str, Spoil] = {
    "a web page": lambda _pem, _name: "<html>no</html>",
    "nothing": lambda _pem, _name: "",
    "half a certificate": lambda pem, _name: pem[:300],
    "a private key too": lambda pem, _name: pem + PRIVATE_KEY,
    "5 MB": five_megabytes,
}
FOR_RENEWALS: Mapping[str, Spoil] = {"another key": another_key, "a web page": GARBAGE["a web page"]}
OLD_CHAIN, OTHER_CHAIN = "the chain of the version before", "the chain of another order"


class Spoiling:
    """Hands out spoiled chains for the names that it is told."""

    def __init__(self, proxy: CaProxy) -> None:
        self._proxy = proxy
        self.by_name: dict[str, Spoil] = {}

    def __call__(self, passing: Passing) -> Answer:
        answer = passing.pass_on()
        (dns_name,) = self._proxy.since(0).dns_names_at(passing.asked.path)
        spoil = self.by_name.get(dns_name)
        return answer if spoil is None else replace(answer, body=spoil(answer.body.decode(), dns_name).encode())


class Memory:
    """Of a process: the most that it held since the last `forget`."""

    def __init__(self, pid: int) -> None:
        self._folder = Path("/proc", str(pid))

    def forget(self) -> None:
        (self._folder / "clear_refs").write_text("5")

    @property
    def peak_megabytes(self) -> float:
        lines = (self._folder / "status").read_text().splitlines()
        (kibibytes,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
        return int(kibibytes) * 1024 / MEGABYTE


def bad_certificates(folder: Path, findings: Findings, short: bool) -> None:
    del short
    with stage(folder) as on:
        spoiling = Spoiling(on.proxy)
        other = on.issue("other")
        renewed = {what: on.issue(_label(f"renewed {what}")) for what in (*FOR_RENEWALS, OLD_CHAIN)}
        before = {what: on.chain_pem(certificate_id, 1) for what, certificate_id in renewed.items()}
        chains: Mapping[str, Spoil] = {
            **WRONG,
            **GARBAGE,
            OTHER_CHAIN: lambda _pem, _name: on.chain_pem(other, 1),
        }
        on.proxy.fail_at_rate(1.0, spoiling, ["certificate"])
        for what, spoil in chains.items():
            spoiling.by_name[f"{_label(what)}.{ZONE}"] = spoil
        for what, pem in before.items():
            again: Spoil = FOR_RENEWALS.get(what, lambda _pem, _name, pem=pem: pem)  # type: ignore[misc]
            spoiling.by_name[f"{_label(f'renewed {what}')}.{ZONE}"] = again

        placed = {what: on.place(_label(what)) for what in chains if what != "5 MB"}
        renewals = {what: on.renew(certificate_id) for what, certificate_id in renewed.items()}
        for what, order_id in placed.items():
            _refused(on, findings, what, order_id)
        for what, order_id in renewals.items():
            _renewal_refused(on, findings, what, order_id, renewed[what], before[what])
        placed["5 MB"] = _in_little_memory(on, findings)

        on.proxy.recover()
        _good_afterwards(on, findings, [_label(what) for what in chains], renewed.values())
        on.tally(findings, refused=[*placed.values(), *renewals.values()])


def _in_little_memory(on: Stage, findings: Findings) -> str:
    memory = Memory(on.service.pid)
    memory.forget()
    before = memory.peak_megabytes
    order_id = on.place(_label("5 MB"))
    _refused(on, findings, "5 MB", order_id)
    grown = memory.peak_megabytes - before
    findings.between("5 MB: MB by which the service's memory grew at most", 0, grown, MOST_MEGABYTES)
    return order_id


def _refused(on: Stage, findings: Findings, what: str, order_id: str) -> None:
    """A first certificate: there is no line."""
    order = on.ended(order_id)
    _ends_rejected(on, findings, what, order)
    (dns_name,) = order["domains"]
    listed = on.client.get("/v1/pki/certificates", domain=dns_name)["data"]
    status = on.client.try_get(f"/v1/pki/certificates/{on.certificate_id_meant(order_id)}").status_code
    findings.equal(
        f"{what}: certificate told, listed, found", (order["certificate_id"], listed, status), (None, [], 404)
    )


def _renewal_refused(on: Stage, findings: Findings, what: str, order_id: str, certificate_id: str, before: str) -> None:
    _ends_rejected(on, findings, f"renewal, {what}", on.ended(order_id))
    shown = on.certificate(certificate_id)
    newer = on.client.try_get(f"/v1/pki/certificates/{certificate_id}/pem?version=2").status_code
    findings.equal(f"renewal, {what}: version, answer for the next one", (shown["version"], newer), (1, 404))
    findings.equal(f"renewal, {what}: the old one is what it was", on.chain_pem(certificate_id, 1) == before, True)


def _ends_rejected(on: Stage, findings: Findings, what: str, order: Any) -> None:
    ended = (order["status"], order["error"]["code"])
    findings.equal(f"{what}: the order ends", ended, ("invalid", "certificate_rejected"))
    downloads = [
        each
        for each in on.proxy.since(0).at("certificate")
        if list(on.proxy.since(0).dns_names_at(each.path)) == order["domains"]
    ]
    findings.between(f"{what}: downloads", 1, len(downloads), MOST_DOWNLOADS + (order["renews"] is not None))


def _good_afterwards(on: Stage, findings: Findings, labels: Sequence[str], renewed: Any) -> None:
    placed = [on.place(label) for label in labels]
    again = [on.renew(certificate_id) for certificate_id in renewed]
    statuses = [on.ended(order_id)["status"] for order_id in (*placed, *again)]
    findings.equal("orders for the same names afterwards", set(statuses), {"valid"})
    versions = [(on.certificate(each)["version"], on.key_fits(each, 2)) for each in renewed]
    findings.equal("versions of what was renewed, with their own keys", set(versions), {(2, True)})


def _label(what: str) -> str:
    return what.replace(" ", "-").lower()


def _leaf_key(chain_pem: str) -> CertificatePublicKeyTypes:
    return x509.load_pem_x509_certificates(chain_pem.encode())[0].public_key()


def _signed(key: CertificatePublicKeyTypes, dns_names: Sequence[str]) -> str:
    """By nobody that is known."""
    now = datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Somebody")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key)
        .serial_number(int.from_bytes(os.urandom(8), "big"))
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=90))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(each) for each in dns_names]), critical=False)
        .sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    )
    return certificate.public_bytes(Encoding.PEM).decode()


SCENARIOS = [
    Scenario(
        "C19",
        "a certificate with another key, other names, another order's, garbage, 5 MB; first ones and renewals",
        bad_certificates,
    )
]
