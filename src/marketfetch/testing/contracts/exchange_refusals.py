"""The part of the exchange contract about answers that are errors."""

from __future__ import annotations

import pytest

from marketfetch.decoding.layouts import excerpt
from marketfetch.errors import (
    Banned,
    ExchangeNotAvailable,
    FatalFetchError,
    FetchError,
    RateLimitExceeded,
    RestrictedLocation,
)
from marketfetch.sources import Endpoint
from marketfetch.testing.contracts.exchange_cases import (
    FIXED_NOW,
    check_refusal,
    errors_inside,
    response,
    result_of_raise_for_error,
)
from marketfetch.testing.contracts.exchange_messages import naming_raw_errors
from marketfetch.testing.contracts.exchange_subject import ExchangeUnderTest

__all__ = ["RefusalContract"]

_PAGE = b"<html><head><title>%d</title></head><body><center>nginx</center></body></html>"
_CODES = (b'{"code":"50011","msg":"","data":[]}', b'{"code":-1003,"msg":""}', b'{"error":{"code":7}}')
_LOCATION = b'{"code":0,"msg":"Service unavailable from a restricted location according to the terms."}'
_LONG_WAIT = 1000
"""A wait of a quarter of an hour would be a ban: so many seconds were meant to be milliseconds."""


class RefusalContract(ExchangeUnderTest):
    """Every error raises the exception that says what to do next, whatever the body."""

    def test_14_good_answers_pass(self, endpoint: Endpoint) -> None:
        for case in self.cases(endpoint):
            place = f"{self.exchange.__name__}.raise_for_error"
            with naming_raw_errors(place, case.body, "it gets good answers, too"):
                try:
                    self.exchange().raise_for_error(response(200, case.body))
                except FetchError as error:
                    pytest.fail(f"{place} raised {error!r} for the good answer {case.body[:80]!r}")

    def test_14_errors_inside_a_good_status_are_no_empty_page(self, endpoint: Endpoint) -> None:
        exchange = self.exchange()
        for body, error in self.error_bodies.items():
            raised = check_refusal(exchange, response(200, body), error)
            wait, until = getattr(raised, "retry_after", None) or 0, getattr(raised, "until", None)
            assert wait < _LONG_WAIT, (
                f"{excerpt(body)} became retry_after={wait}: it is in seconds, so divide milliseconds by 1000"
            )
            assert until is None or until > FIXED_NOW // 2, (
                f"{excerpt(body)} became until={until}: it is a moment in UTC milliseconds"
            )
        for case in self.cases(endpoint):
            for body in errors_inside(case.body):
                try:
                    returned = result_of_raise_for_error(exchange, response(200, body))
                    assert returned is None, f"raise_for_error returned {returned!r}: raise it"
                    decoded = self.decode(endpoint, body, case.part)
                except FetchError:
                    continue
                pytest.fail(
                    f"{body.decode()} with HTTP 200 became a page of {len(decoded.columns)} rows:"
                    " raise the error it stands for in raise_for_error(response)"
                )

    @pytest.mark.parametrize(
        ("status", "error"),
        [
            (429, RateLimitExceeded),
            (418, Banned),
            (403, Banned),
            (451, RestrictedLocation),
            *((status, ExchangeNotAvailable) for status in (301, 302, 307, 308, 408, 500, 502, 503, 504)),
            *((status, FatalFetchError) for status in (400, 404)),
        ],
    )
    def test_15_every_refusal_has_its_error(self, status: int, error: type[FetchError]) -> None:
        for body in (_PAGE % status, b"", b"null", b"{}"):
            check_refusal(self.exchange(), response(status, body), error)

    @pytest.mark.parametrize(
        ("status", "error"),
        [(429, RateLimitExceeded), (418, Banned), (403, Banned), (451, RestrictedLocation)],
    )
    def test_15_no_code_in_the_body_outweighs_the_status(self, status: int, error: type[FetchError]) -> None:
        """Who reads the code first goes on asking after a ban, or from elsewhere after a legal refusal."""
        for body in (*_CODES, *self.error_bodies):
            check_refusal(self.exchange(), response(status, body), error)

    def test_15_a_legal_refusal_ends_the_run(self) -> None:
        check_refusal(self.exchange(), response(403, _LOCATION), RestrictedLocation)
        check_refusal(self.exchange(), response(451, _LOCATION), RestrictedLocation)

    def test_15_a_redirect_is_named_without_its_credentials(self) -> None:
        answer = response(302, b"", {"location": "https://anna:hunter2@portal.example/?token=hunter2"})
        assert "hunter2" not in str(check_refusal(self.exchange(), answer, ExchangeNotAvailable))

    def test_16_retry_after_is_read(self) -> None:
        headers = {"retry-after": "7"}
        slow = check_refusal(self.exchange(), response(429, b"", headers), RateLimitExceeded)
        wait = getattr(slow, "retry_after", None)
        assert wait == 7, (
            f"Retry-After: 7 became retry_after={wait}: pass retry_after=, as the base class does"
        )
        banned = check_refusal(self.exchange(), response(418, b"", headers), Banned)
        until = getattr(banned, "until", None)
        assert until == FIXED_NOW + 7000, (
            f"Retry-After: 7 became until={until}: pass until= in UTC milliseconds"
        )
