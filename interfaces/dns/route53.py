"""Route 53's API (2013-04-01): one account, its hosted zones and their TXT record sets. The only module that knows boto3."""

from __future__ import annotations

import re
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial
from io import BytesIO
from ipaddress import ip_address
from threading import Lock
from typing import TYPE_CHECKING, Annotated, NamedTuple
from urllib.parse import urlsplit

import boto3
import httpx
import msgspec
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.client import BaseClient
from botocore.compat import HTTPHeaders
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    TokenRetrievalError,
)

from application.errors import Failure, ResolverFailed, ZoneRefused, ZoneUnreachable
from domain.errors import FieldProblem, InvalidFields
from interfaces.dns.egress import Egress
from interfaces.dns.route53_errors import failure_of
from interfaces.dns.settings import Credentials
from interfaces.foreign_text import clean

if TYPE_CHECKING:  # the stubs are no dependency of the service
    from mypy_boto3_route53 import Route53Client
    from mypy_boto3_route53.type_defs import ChangeTypeDef, ResourceRecordSetOutputTypeDef

BOTO_CONFIG = Config(  # type: ignore[call-arg]  # the stubs do not know `ignore_configured_endpoint_urls`
    connect_timeout=10,
    read_timeout=10,
    retries={"total_max_attempts": 1, "mode": "standard"},  # who calls tries again, and knows for how long
    proxies={},
    ignore_configured_endpoint_urls=True,
    max_pool_connections=32,
)
TIMEOUT_SECONDS = 20.0
RENEW_BEFORE = timedelta(minutes=5)
NO_CREDENTIALS = (CredentialRetrievalError, NoCredentialsError, PartialCredentialsError, TokenRetrievalError)

# What boto3 takes for a host name; anything else it refuses with a bare ValueError.
HOST_NAME = re.compile(r"(?=.{1,253}\.?\Z)((?!-)[A-Za-z0-9-]{1,63}(?<!-)\.)*(?!-)[A-Za-z0-9-]{1,63}(?<!-)\.?")

Text = Annotated[str, msgspec.Meta(pattern=r"^[!-~]+\Z")]


class Route53Config(msgspec.Struct, frozen=True):
    """With `endpoint_url` both Route 53 and STS are asked there. `hosted_zone_id` pins the one zone to write to."""

    region: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9-]{1,32}\Z")] = "us-east-1"
    endpoint_url: (
        Annotated[str, msgspec.Meta(pattern=r"^https?://(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?/?\Z")] | None
    ) = None
    role_arn: Annotated[str, msgspec.Meta(pattern=r"^arn:aws[a-z-]*:iam::[0-9]{12}:role/[!-~]+\Z")] | None = None
    hosted_zone_id: Annotated[str, msgspec.Meta(pattern=r"^(/hostedzone/)?[A-Z0-9]{1,32}\Z")] | None = None


class Route53Credentials(Credentials, frozen=True):
    """Both keys, or none for what the host itself has (environment, instance role)."""

    access_key_id: Text | None = None
    secret_access_key: Text | None = None
    session_token: Text | None = None


class HostedZone(NamedTuple):
    """`dns_name` in lower case without the final dot; `zone_id` without `/hostedzone/`."""

    dns_name: str
    zone_id: str


class Route53Account:
    """Safe to call from many threads. Raises what `route53_errors` says, and EgressRefused."""

    def __init__(self, config: Route53Config, credentials: Route53Credentials, egress: Egress) -> None:
        """Raises InvalidFields for an `endpoint_url` that leads nowhere."""
        self._config = config
        if config.endpoint_url is not None:
            _check_endpoint(config.endpoint_url)
        self._credentials = credentials
        self._egress = egress
        self._building = Lock()
        self._built: tuple[Route53Client, datetime | None] | None = None

    def hosted_zones(self) -> Sequence[HostedZone]:
        """The public ones; with a pin only the pinned one."""
        with self._client() as client:
            if self._config.hosted_zone_id is not None:
                held = [client.get_hosted_zone(Id=self._config.hosted_zone_id)["HostedZone"]]
            else:
                pages = client.get_paginator("list_hosted_zones").paginate()
                held = [zone for page in pages for zone in page["HostedZones"]]
        return [
            HostedZone(zone["Name"].rstrip(".").lower(), zone["Id"].removeprefix("/hostedzone/"))
            for zone in held
            if not zone["Config"].get("PrivateZone", False)
        ]

    def txt_record_set(self, zone_id: str, record_name: str) -> ResourceRecordSetOutputTypeDef | None:
        """The set as Route 53 holds it, with whatever else belongs to it."""
        with self._client() as client:
            page = client.list_resource_record_sets(
                HostedZoneId=zone_id, StartRecordName=record_name, StartRecordType="TXT", MaxItems="1"
            )
        for held in page["ResourceRecordSets"]:
            if held["Type"] == "TXT" and held["Name"].rstrip(".").lower() == record_name:
                return held
        return None

    def change(self, zone_id: str, changes: Sequence[ChangeTypeDef]) -> str:
        """All of them or none; the id of the change. Raises ZoneConflict, EarlierChangeUnfinished."""
        with self._client() as client:
            answer = client.change_resource_record_sets(HostedZoneId=zone_id, ChangeBatch={"Changes": changes})
        return answer["ChangeInfo"]["Id"]

    def is_in_sync(self, change_id: str) -> bool:
        """Whether all of Route 53's name servers have the change."""
        with self._client() as client:
            return client.get_change(Id=change_id)["ChangeInfo"]["Status"] == "INSYNC"

    @contextmanager
    def _client(self) -> Iterator[Route53Client]:
        """The client, kept as long as its credentials live; what goes wrong inside, in our own words."""
        try:
            with self._building:
                if self._built is None or _soon_over(self._built[1]):
                    self._built = self._build()
                client = self._built[0]
            yield client
        except ClientError as error:
            raise self._failure_of(error) from None
        except NO_CREDENTIALS as error:
            raise ZoneRefused("credentials_rejected", self._words(error)) from None
        except (BotoCoreError, httpx.HTTPError, OSError, ResolverFailed, UnicodeError) as error:
            raise ZoneUnreachable(self._words(error)) from None

    def _build(self) -> tuple[Route53Client, datetime | None]:
        session = boto3.Session(
            aws_access_key_id=self._credentials.access_key_id,
            aws_secret_access_key=self._credentials.secret_access_key,
            aws_session_token=self._credentials.session_token,
            region_name=self._config.region,
        )
        ends_at = None
        if self._config.role_arn is not None:
            # `verify=True` is the bundle of botocore: without it the environment's AWS_CA_BUNDLE would decide.
            sts = session.client("sts", endpoint_url=self._config.endpoint_url, verify=True, config=BOTO_CONFIG)
            self._guard(sts)
            assumed = sts.assume_role(RoleArn=self._config.role_arn, RoleSessionName="scaivault")["Credentials"]
            session = boto3.Session(
                aws_access_key_id=assumed["AccessKeyId"],
                aws_secret_access_key=assumed["SecretAccessKey"],
                aws_session_token=assumed["SessionToken"],
                region_name=self._config.region,
            )
            ends_at = assumed["Expiration"]
        client = session.client("route53", endpoint_url=self._config.endpoint_url, verify=True, config=BOTO_CONFIG)
        self._guard(client)
        return client, ends_at

    def _guard(self, client: BaseClient) -> None:
        """An endpoint that somebody gave is dialled by our own way out: boto3 would resolve the name once more."""
        if self._config.endpoint_url is not None:
            sent_by_us = partial(_sent_by, self._http)
            client.meta.events.register("before-send", sent_by_us)  # type: ignore[arg-type]  # the stubs know no answer

    @cached_property
    def _http(self) -> httpx.Client:
        http = self._egress.client(timeout_seconds=TIMEOUT_SECONDS)
        weakref.finalize(self, http.close)
        return http

    def _failure_of(self, error: ClientError) -> Failure:
        said = error.response.get("Error", {})
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return failure_of(self._clean(said.get("Code", "")), self._clean(said.get("Message", "")), status)

    def _words(self, error: Exception) -> str:
        return self._clean(f"Route 53: {error}")

    def _clean(self, text: str) -> str:
        return clean(text, (self._credentials.secret_access_key, self._credentials.session_token))


class _Body(BytesIO):
    """A body as boto3 reads it."""

    def stream(self) -> Iterator[bytes]:
        yield self.read()


def _sent_by(http: httpx.Client, request: AWSPreparedRequest, **_context: object) -> AWSResponse:
    """boto3 takes what a handler of `before-send` gives back for the answer, and sends nothing itself."""
    body = request.body if isinstance(request.body, str | bytes) else None
    answer = http.request(request.method, request.url, headers=dict(request.headers), content=body)
    headers = HTTPHeaders()
    for name, value in answer.headers.items():
        headers[name] = value
    return AWSResponse(request.url, answer.status_code, headers, _Body(answer.content))


def _check_endpoint(endpoint_url: str) -> None:
    with suppress(ValueError):
        url = urlsplit(endpoint_url)
        host = url.hostname or ""
        if not HOST_NAME.fullmatch(host):
            ip_address(host)
        if url.port != 0:
            return
    raise InvalidFields(FieldProblem("config.endpoint_url", "invalid", "names no host and port"))


def _soon_over(ends_at: datetime | None) -> bool:
    return ends_at is not None and datetime.now(UTC) >= ends_at - RENEW_BEFORE
