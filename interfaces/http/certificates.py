"""`/v1/pki/certificates`: certificate lines, their PEM, their keys, and renewing them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from litestar import Request, Response, get, patch, post
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, FromQuery, JSONBody
from msgspec import UNSET, UnsetType

from application.caller import Caller
from application.certificates import NewName
from application.explanations import Explanation, ShownCost, shown_cost
from domain.certificate import RevocationReason
from domain.errors import FieldProblem, InvalidFields, NotFound
from domain.names import normalise_dns_name
from interfaces.http.authentication import FromApp, FromToken
from interfaces.http.bodies import Csr, Name, RequestBody, WithOptionalBody, duration_in
from interfaces.http.etags import is_known
from interfaces.http.orders import RUNNING, order_view
from interfaces.http.outside import outside_call
from interfaces.http.pages import FromPage
from interfaces.http.problems import ERRORS
from interfaces.http.services import Services
from interfaces.http.views import listed, one
from projections.certificate_pems import CERTIFICATE_PEMS, PemView
from projections.certificates import (
    CERTIFICATES,
    NOT_REVOKED,
    CertificateView,
    Status,
    ending_within,
    good_for,
    shown,
    with_status,
)
from projections.documents import Condition
from projections.orders import OrderView

PEM_FILE = "application/x-pem-file"
KNOWN = ResponseSpec(None, generate_examples=False, description="As `If-None-Match` knows it")
Reason = Annotated[str, msgspec.Meta(min_length=1, max_length=500)]


class PrivateKeyRequest(RequestBody, frozen=True):
    version: int | None = None


class PrivateKeyAnswer(msgspec.Struct, frozen=True):
    private_key_pem: str
    version: int
    key_type: str

    def __repr__(self) -> str:
        return "PrivateKeyAnswer(…)"


class Renew(RequestBody, frozen=True):
    """A new key is made, unless `new_key` is false. `csr_pem` brings one that stays with whom it belongs to; from then on its
    request is used again, until another one is brought."""

    reason: Reason = "requested"
    new_key: bool | None = None
    csr_pem: Csr | None = None


class RenewalAnswer(OrderView, frozen=True):
    """The order, and what it costs; `cost` is None for one that was in progress already."""

    cost: ShownCost | None = None


class Revise(RequestBody, frozen=True):
    """What is left out stays."""

    auto_renew: bool | UnsetType = UNSET
    name: Name | UnsetType | None = UNSET


class Release(RequestBody, frozen=True):
    """`reason` is put on record."""

    reason: Reason


class Revoke(RequestBody, frozen=True):
    """The newest version where none is named."""

    reason: RevocationReason = "unspecified"
    version: int | None = None


class CertificateList(msgspec.Struct, frozen=True):
    data: Sequence[CertificateView]
    cursor: str | None
    has_more: bool


@get("/pki/certificates", opt={"scope": "pki:read"}, responses=ERRORS, sync_to_thread=True)
def list_certificates(
    caller: FromToken,
    services: FromApp,
    page: FromPage,
    domain: FromQuery[str | None] = None,
    status: FromQuery[Status | None] = None,
    account_id: FromQuery[str | None] = None,
    expiring_within: FromQuery[str | None] = None,
    include_revoked: FromQuery[bool] = False,
) -> CertificateList:
    """`domain` finds those that have the name or cover it by a wildcard, `expiring_within` those that have not ended and
    will so soon (`30d`). Revoked ones are left out, unless they are asked for. A token that is limited to certificates or
    names sees those alone."""
    now = services.clock.now()
    wanted: list[Condition] = []
    if domain is not None:
        wanted.append(good_for(_dns_name(domain)))
    if status is not None:
        wanted.append(with_status(status, now))
    elif not include_revoked:
        wanted.append(NOT_REVOKED)
    if expiring_within is not None:
        wanted.append(ending_within(duration_in("expiring_within", expiring_within), now))
    certificates, cursor = listed(
        CERTIFICATES,
        services,
        caller,
        page,
        {} if account_id is None else {"account_id": account_id},
        lambda view: caller.limits.allow(view.id, view.domains),
        wanted,
    )
    return CertificateList([shown(view, now) for view in certificates], cursor, cursor is not None)


@get("/pki/certificates/{certificate_id:str}", opt={"scope": "pki:read"}, responses=ERRORS, sync_to_thread=True)
def get_certificate(certificate_id: FromPath[str], caller: FromToken, services: FromApp) -> CertificateView:
    return shown(_view(services, caller, certificate_id), services.clock.now())


@get(
    "/pki/certificates/{certificate_id:str}/pem",
    opt={"scope": "pki:read"},
    responses={**ERRORS, 304: KNOWN},
    sync_to_thread=True,
)
def get_pem(
    certificate_id: FromPath[str],
    caller: FromToken,
    services: FromApp,
    request: Request[Any, Any, Any],
    version: FromQuery[int | None] = None,
) -> Response[PemView]:
    """Leaf and chain. With `If-None-Match` of the same version 304; as `application/x-pem-file` the bare file."""
    _view(services, caller, certificate_id)
    view = CERTIFICATE_PEMS.one(services.pool, caller.tenant_id, certificate_id, version)
    if view is None:
        raise NotFound("version", f"{certificate_id} version {version}")
    bare = PEM_FILE in request.headers.get("accept", "")
    etag = f'"{view.fingerprint_sha256}{"-pem" if bare else ""}"'
    headers = {"ETag": etag, "Cache-Control": "private, no-cache", "Vary": "Accept"}
    answer: Response[Any]
    if is_known(etag, request.headers.getall("if-none-match", [])):
        answer = Response(None, status_code=304, headers=headers)
    elif bare:
        answer = Response(view.certificate_pem, media_type=PEM_FILE, headers=headers)
    else:
        answer = Response(view, headers=headers)
    return answer


@post(
    "/pki/certificates/{certificate_id:str}/private-key",
    operation_class=WithOptionalBody,
    opt={"scope": "pki:export", "idempotent": False},
    responses=ERRORS,
    status_code=200,
    sync_to_thread=True,
)
def get_private_key(
    certificate_id: FromPath[str], caller: FromToken, services: FromApp, data: JSONBody[PrivateKeyRequest | None] = None
) -> Response[PrivateKeyAnswer]:
    """The key of the newest version, or of the one asked for. That it was read is on record before it is given."""
    version, key_pem = services.certificates.private_key(certificate_id, data.version if data else None, caller)
    body = PrivateKeyAnswer(key_pem.reveal_text(), version.number, version.key_type)
    return Response(body, headers={"Cache-Control": "no-store"})


@post(
    "/pki/certificates/{certificate_id:str}/renew",
    operation_class=WithOptionalBody,
    opt={"scope": "pki:issue"},
    status_code=202,
    responses={**ERRORS, 200: RUNNING},
    sync_to_thread=True,
)
def renew(
    certificate_id: FromPath[str], caller: FromToken, services: FromApp, data: JSONBody[Renew | None] = None
) -> Response[RenewalAnswer]:
    """An order for the next version under the same id; 200 with the running one where there is one. `cost` says whether
    the CA counts it, and why; `explain` says so beforehand."""
    wanted = data or Renew()
    placed = services.renewals.renew(
        certificate_id, reason=wanted.reason, new_key=wanted.new_key, csr_pem=wanted.csr_pem, caller=caller
    )
    order = msgspec.structs.asdict(order_view(services, caller, placed.order_id))
    cost = None if placed.cost is None else shown_cost(placed.cost, placed.ca)
    return Response(
        RenewalAnswer(**order, cost=cost),
        status_code=202 if placed.is_new else 200,
        headers={"Location": f"/v1/pki/acme/orders/{placed.order_id}"},
    )


@patch("/pki/certificates/{certificate_id:str}", opt={"scope": "pki:issue"}, responses=ERRORS, sync_to_thread=True)
def revise_certificate(
    certificate_id: FromPath[str], data: JSONBody[Revise], caller: FromToken, services: FromApp
) -> CertificateView:
    """Whether it is renewed by itself, and its name."""
    services.certificates.revise(
        certificate_id,
        caller,
        auto_renew=None if data.auto_renew is UNSET else data.auto_renew,
        new_name=None if data.name is UNSET else NewName(data.name),
    )
    return shown(_view(services, caller, certificate_id), services.clock.now())


@get("/pki/certificates/{certificate_id:str}/explain", opt={"scope": "pki:read"}, responses=ERRORS, sync_to_thread=True)
def explain(certificate_id: FromPath[str], caller: FromToken, services: FromApp) -> Explanation:
    """Why it will be renewed when it will, or will not; every sentence names the event that it rests on."""
    return services.explanations.explain(certificate_id, caller)


@post(
    "/pki/certificates/{certificate_id:str}/revoke",
    operation_class=WithOptionalBody,
    opt={"scope": "pki:admin"},
    status_code=200,
    responses=ERRORS,
    sync_to_thread=True,
)
def revoke(
    certificate_id: FromPath[str], caller: FromToken, services: FromApp, data: JSONBody[Revoke | None] = None
) -> CertificateView:
    """Revoked at the CA before the answer. The current version is replaced at once where it is renewed by itself."""
    wanted = data or Revoke()
    _view(services, caller, certificate_id)
    with outside_call(services):
        services.revocations.revoke(certificate_id, wanted.version, wanted.reason, caller)
    return shown(_view(services, caller, certificate_id), services.clock.now())


@post(
    "/pki/certificates/{certificate_id:str}/release-renewal",
    opt={"scope": "pki:admin"},
    status_code=200,
    responses=ERRORS,
    sync_to_thread=True,
)
def release_renewal(
    certificate_id: FromPath[str], data: JSONBody[Release], caller: FromToken, services: FromApp
) -> CertificateView:
    """Lifts the breaker that holds its renewals; nothing happens where it does not."""
    services.renewals.release(certificate_id, data.reason, caller)
    return shown(_view(services, caller, certificate_id), services.clock.now())


def _dns_name(text: str) -> str:
    """Raises InvalidFields."""
    try:
        return normalise_dns_name(text)
    except ValueError as problem:
        raise InvalidFields(FieldProblem("domain", "invalid_name", str(problem))) from None


def _view(services: Services, caller: Caller, certificate_id: str) -> CertificateView:
    """Raises NotFound, Denied."""
    caller.require_certificate(certificate_id)
    view: CertificateView = one(CERTIFICATES, "certificate", services, caller, certificate_id)
    caller.require_names(view.domains)
    return view
