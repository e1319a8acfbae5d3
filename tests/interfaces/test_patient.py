"""Who was told to wait is not asked before."""

from __future__ import annotations

import pytest

from application.errors import ZoneThrottled, ZoneUnreachable
from application.ports import TxtValue
from interfaces.dns.patient import PatientZone
from tests.fakes_dns import FakeZone

VALUE = TxtValue("_acme-challenge.acme.example", "value")


class Hurried:
    """A provider behind a PatientZone, and the time."""

    def __init__(self) -> None:
        self.provider = FakeZone(["acme.example"])
        self.seconds = 100.0
        self.zone = PatientZone(self.provider, lambda: self.seconds)

    def told_to_wait(self) -> float | None:
        with pytest.raises(ZoneThrottled) as throttled:
            self.zone.add([VALUE])
        return throttled.value.retry_after_seconds


def test_all_calls_wait_for_as_long_as_one_was_told_to() -> None:
    hurried = Hurried()
    hurried.provider.throttle(retry_after_seconds=60)
    assert hurried.told_to_wait() == 60
    hurried.provider.recover()
    hurried.seconds += 59
    assert hurried.told_to_wait() == 1
    for call in (hurried.zone.zones, lambda: hurried.zone.remove([VALUE])):
        with pytest.raises(ZoneThrottled):
            call()
    assert hurried.provider.txt(VALUE.record_name) == []
    hurried.seconds += 1
    hurried.zone.add([VALUE])
    assert hurried.provider.txt(VALUE.record_name) == ["value"]
    assert hurried.zone.zones() == ["acme.example"]
    hurried.zone.remove([VALUE])
    assert hurried.provider.txt(VALUE.record_name) == []


def test_who_was_not_told_for_how_long_may_ask_again() -> None:
    hurried = Hurried()
    hurried.provider.throttle()
    assert hurried.told_to_wait() is None
    hurried.provider.recover()
    hurried.zone.add([VALUE])


def test_other_failures_ask_for_no_patience() -> None:
    hurried = Hurried()
    hurried.provider.vanish()
    with pytest.raises(ZoneUnreachable):
        hurried.zone.add([VALUE])
    hurried.provider.recover()
    hurried.zone.add([VALUE])
