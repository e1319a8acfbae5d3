"""The PEM of each version of each certificate line: what edges fetch."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec
from psycopg import Cursor
from psycopg.rows import TupleRow

from domain.certificate import Certificate
from domain.provenance import Recorded
from projections.documents import Pool
from projections.times import whole_seconds

END = "-----END CERTIFICATE-----\n"


class PemView(msgspec.Struct, frozen=True):
    """`certificate_pem` is the leaf and the chain."""

    certificate_pem: str
    chain_pem: str
    leaf_pem: str
    version: int
    serial_number: str
    fingerprint_sha256: str
    not_after: datetime


def parted(certificate_pem: str) -> tuple[str, str]:
    """The leaf, and the rest of the chain."""
    leaf, end, rest = certificate_pem.partition(END)
    return leaf + end, rest


class CertificatePems:
    name = "certificate_pems"
    ddl = """
CREATE TABLE certificate_pems (
    certificate_id text NOT NULL,
    version integer NOT NULL,
    tenant_id text NOT NULL,
    document json NOT NULL,
    PRIMARY KEY (certificate_id, version)
)"""

    def apply(self, cursor: Cursor[TupleRow], events: Sequence[Recorded]) -> None:
        rows = []
        for recorded in events:
            match recorded.event:
                case Certificate.Issued(version=version) | Certificate.Renewed(version=version):
                    leaf_pem, rest = parted(version.chain_pem)
                    view = PemView(
                        certificate_pem=version.chain_pem,
                        chain_pem=rest,
                        leaf_pem=leaf_pem,
                        version=version.number,
                        serial_number=version.serial_number,
                        fingerprint_sha256=version.fingerprint_sha256,
                        not_after=whole_seconds(version.not_after),
                    )
                    document = msgspec.json.encode(view).decode()
                    rows.append([recorded.event.originator_id, version.number, recorded.by.tenant_id, document])
                case _:
                    pass
        if rows:
            cursor.executemany("INSERT INTO certificate_pems VALUES (%s, %s, %s, %s)", rows)

    def one(self, pool: Pool, tenant_id: str, certificate_id: str, version: int | None) -> PemView | None:
        """That version's, the newest for None; None where the tenant has none such."""
        with pool.connection() as connection:
            row = connection.execute(
                "SELECT document::text FROM certificate_pems WHERE certificate_id = %s AND tenant_id = %s"
                " AND version = coalesce(%s, version) ORDER BY version DESC LIMIT 1",
                [certificate_id, tenant_id, version],
            ).fetchone()
        return msgspec.json.decode(row[0], type=PemView) if row else None


CERTIFICATE_PEMS = CertificatePems()
