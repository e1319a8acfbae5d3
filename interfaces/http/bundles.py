"""`POST /v1/pki/certificates/{id}/bundle`: certificate, chain and key of one version, at once or when it is there."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, assert_never

import msgspec
from litestar import Request, Response, post
from litestar.concurrency import sync_to_thread
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, FromQuery, JSONBody

from application.caller import Caller
from application.secret_value import SecretValue
from domain.certificate import Version
from domain.errors import FieldProblem, InvalidFields
from interfaces.http.authentication import FromApp, FromToken
from interfaces.http.bodies import RequestBody, WithOptionalBody
from interfaces.http.problems import ERRORS, BadRequest
from interfaces.http.services import Services
from interfaces.http.views import one_with_position
from interfaces.http.waiting import Look, look_until_enough, require_wait
from interfaces.key_files import jks_file, pem_file, pkcs12_file
from projections.certificate_pems import parted
from projections.certificates import CERTIFICATES, CertificateView
from projections.times import whole_seconds

Format = Literal["json", "pem", "pkcs12", "jks"]
Password = Annotated[str, msgspec.Meta(pattern=r"^[ -~]{8,128}(?![\s\S])")]
"""ASCII: programs do not agree on how others are spelled."""

Alias = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]{1,64}(?![\s\S])")]

MEDIA_TYPES: Mapping[Format, str] = {
    "json": "application/json",
    "pem": "application/x-pem-file",
    "pkcs12": "application/x-pkcs12",
    "jks": "application/x-java-keystore",
}
VERSION_HEADER = "X-ScaiVault-Version"
NOT_NEWER = ResponseSpec(None, generate_examples=False, description="There is no version after `after` yet")


class BundleRequest(RequestBody, frozen=True):
    """`password` (8 to 128 characters of ASCII) and `alias` (the certificate's id) are for `pkcs12` and `jks`."""

    format: Format = "json"
    password: Password | None = None
    version: int | None = None
    alias: Alias | None = None


class BundleAnswer(msgspec.Struct, frozen=True):
    """All of one version. `certificate_pem` is the leaf and the chain."""

    certificate_pem: str
    chain_pem: str
    leaf_pem: str
    private_key_pem: str
    version: int
    serial_number: str
    fingerprint_sha256: str
    not_after: datetime
    key_type: str

    def __repr__(self) -> str:
        return "BundleAnswer(…)"


@post(
    "/pki/certificates/{certificate_id:str}/bundle",
    operation_class=WithOptionalBody,
    opt={"scope": "pki:export", "idempotent": False},
    responses={**ERRORS, 304: NOT_NEWER},
    status_code=200,
)
async def get_bundle(
    certificate_id: FromPath[str],
    request: Request[Any, Any, Any],
    caller: FromToken,
    services: FromApp,
    data: JSONBody[BundleRequest | None] = None,
    after: FromQuery[int | None] = None,
    wait: FromQuery[int] = 0,
) -> Response[BundleAnswer]:
    """Of the newest version, or the one asked for; as `pem`, `pkcs12` or `jks` the bare file. With `after` of a newer one
    than that, for which it waits so many seconds (60 at most); 304 where there is none. That the key was read is on record
    before it is given."""
    wanted = data or BundleRequest()
    _require_fitting(wanted)
    require_wait(wait)
    if after is None:
        if wait:
            raise BadRequest(400, "invalid_request", "to wait needs `after`, the version that is known")
    elif wanted.version is not None:
        raise BadRequest(400, "invalid_request", "`after` asks for the newest version, `version` for a certain one")
    elif not await _is_newer(request, services, caller, certificate_id, after, wait):
        return Response(None, status_code=304, headers={"Cache-Control": "no-store"})  # type: ignore[arg-type]
    return await sync_to_thread(_bundle, services, caller, certificate_id, wanted)


async def _is_newer(
    request: Request[Any, Any, Any], services: Services, caller: Caller, certificate_id: str, after: int, seconds: int
) -> bool:
    is_newer = False

    def look() -> Look:
        nonlocal is_newer
        caller.require_certificate(certificate_id)
        view: CertificateView
        view, position = one_with_position(CERTIFICATES, "certificate", services, caller, certificate_id)
        caller.require_names(view.domains)
        is_newer = view.version > after
        return Look(position, is_newer)

    await look_until_enough(request, services, caller, certificate_id, seconds, look)
    return is_newer


def _bundle(services: Services, caller: Caller, certificate_id: str, wanted: BundleRequest) -> Response[BundleAnswer]:
    version, key_pem = services.certificates.private_key(certificate_id, wanted.version, caller)
    password = SecretValue(wanted.password or "")
    alias = wanted.alias or certificate_id
    content: Any
    match wanted.format:
        case "json":
            content = _answer(version, key_pem)
        case "pem":
            content = pem_file(version.chain_pem, key_pem).reveal()
        case "pkcs12":
            content = pkcs12_file(version.chain_pem, key_pem, password, alias).reveal()
        case "jks":
            content = jks_file(version.chain_pem, key_pem, password, alias, services.clock.now()).reveal()
        case _:
            assert_never(wanted.format)
    headers = {"Cache-Control": "no-store", VERSION_HEADER: str(version.number)}
    return Response(content, media_type=MEDIA_TYPES[wanted.format], headers=headers)


def _answer(version: Version, key_pem: SecretValue) -> BundleAnswer:
    leaf_pem, chain_pem = parted(version.chain_pem)
    return BundleAnswer(
        certificate_pem=version.chain_pem,
        chain_pem=chain_pem,
        leaf_pem=leaf_pem,
        private_key_pem=key_pem.reveal_text(),
        version=version.number,
        serial_number=version.serial_number,
        fingerprint_sha256=version.fingerprint_sha256,
        not_after=whole_seconds(version.not_after),
        key_type=version.key_type,
    )


def _require_fitting(wanted: BundleRequest) -> None:
    """Raises InvalidFields. A password that protects nothing is refused, so that nobody relies on it."""
    has_password = wanted.format in {"pkcs12", "jks"}
    if has_password and wanted.password is None:
        raise InvalidFields(FieldProblem("password", "required", f"{wanted.format} needs one"))
    if not has_password:
        given = [field for field in ("password", "alias") if getattr(wanted, field) is not None]
        if given:
            raise InvalidFields(*(FieldProblem(field, "not_taken", f"{wanted.format} takes none") for field in given))
