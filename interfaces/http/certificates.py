"""`/v1/pki/certificates`: certificate lines, their PEM, their keys, and renewing them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from litestar import Request, Response, get, post
from litestar.params import FromPath, FromQuery, JSONBody

from application.caller import Caller
from domain.errors import NotFound
from interfaces.http.authentication import FromApp, FromToken
from interfaces.http.bodies import RequestBody
from interfaces.http.orders import RUNNING, order_answer
from interfaces.http.pages import FromPage
from interfaces.http.problems import ERRORS
from interfaces.http.services import Services
from interfaces.http.views import listed, one
from projections.certificate_pems import CERTIFICATE_PEMS, PemView
from projections.certificates import CERTIFICATES, CertificateView, shown
from projections.orders import OrderView

PEM_FILE = "application/x-pem-file"


class PrivateKeyRequest(RequestBody, frozen=True):
    version: int | None = None


class PrivateKeyAnswer(msgspec.Struct, frozen=True):
    private_key_pem: str
    version: int
    key_type: str

    def __repr__(self) -> str:
        return "PrivateKeyAnswer(…)"


class Renew(RequestBody, frozen=True):
    reason: str = "requested"
    new_key: bool = True


class CertificateList(msgspec.Struct, frozen=True):
    data: Sequence[CertificateView]
    cursor: str | None
    has_more: bool


@get("/pki/certificates", opt={"scope": "pki:read"}, responses=ERRORS, sync_to_thread=True)
def list_certificates(
    caller: FromToken, services: FromApp, page: FromPage, account_id: FromQuery[str | None] = None
) -> CertificateList:
    """A token that is limited to certificates or names sees those alone."""
    matching = {} if account_id is None else {"account_id": account_id}
    certificates, cursor = listed(
        CERTIFICATES, services, caller, page, matching, lambda view: caller.limits.allow(view.id, view.domains)
    )
    now = services.clock.now()
    return CertificateList([shown(view, now) for view in certificates], cursor, cursor is not None)


@get("/pki/certificates/{certificate_id:str}", opt={"scope": "pki:read"}, responses=ERRORS, sync_to_thread=True)
def get_certificate(certificate_id: FromPath[str], caller: FromToken, services: FromApp) -> CertificateView:
    return shown(_view(services, caller, certificate_id), services.clock.now())


@get("/pki/certificates/{certificate_id:str}/pem", opt={"scope": "pki:read"}, responses=ERRORS, sync_to_thread=True)
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
    if etag in request.headers.get("if-none-match", ""):
        answer = Response(None, status_code=304, headers=headers)
    elif bare:
        answer = Response(view.certificate_pem, media_type=PEM_FILE, headers=headers)
    else:
        answer = Response(view, headers=headers)
    return answer


@post(
    "/pki/certificates/{certificate_id:str}/private-key",
    opt={"scope": "pki:export"},
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
    opt={"scope": "pki:issue"},
    status_code=202,
    responses={**ERRORS, 200: RUNNING},
    sync_to_thread=True,
)
def renew(
    certificate_id: FromPath[str], caller: FromToken, services: FromApp, data: JSONBody[Renew | None] = None
) -> Response[OrderView]:
    """An order for the next version under the same id; 200 with the running one where there is one."""
    wanted = data or Renew()
    order_id, is_new = services.orders.renew(
        certificate_id, reason=wanted.reason, new_key=wanted.new_key, caller=caller
    )
    return order_answer(services, caller, order_id, is_new=is_new)


def _view(services: Services, caller: Caller, certificate_id: str) -> CertificateView:
    """Raises NotFound, Denied."""
    caller.require_certificate(certificate_id)
    view: CertificateView = one(CERTIFICATES, "certificate", services, caller, certificate_id)
    caller.require_names(view.domains)
    return view
