from __future__ import annotations

import copy
import pickle
import string

import attrs
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from marketfetch.redaction import Secret, redact
from marketfetch.values.http import Egress

# A part of what is left when a password is cut out can be no password.
PASSWORDS = st.text(string.printable.strip() + "äßпароль斑马", min_size=4, max_size=20).filter(
    lambda password: password not in "://***@10.0.0.1:3128:***"
)
USERS = st.text(string.ascii_letters + string.digits + "._-", min_size=1, max_size=12)


@given(USERS, PASSWORDS, st.sampled_from(["http", "https", "socks5h", "postgresql", "postgres"]))
def test_password_in_a_url_is_cut_out_however_it_is_written(user: str, password: str, scheme: str) -> None:
    rest = f"cannot reach {scheme}://{user}:@10.0.0.1:3128/market: refused"
    assume(password not in rest)
    text = f"cannot reach {scheme}://{user}:{password}@10.0.0.1:3128/market: refused"
    assert password not in redact(text)
    assert "10.0.0.1:3128" in redact(text)


@given(USERS, PASSWORDS)
def test_password_of_a_proxy_without_a_scheme_is_cut_out(user: str, password: str) -> None:
    for text in (f"--proxy 10.0.0.1:3128:{user}:{password}", f"--proxy {user}:{password}@10.0.0.1:3128"):
        assume(password not in text.replace(password, "", 1))
        assert password not in redact(text)


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("http://anna:hun/ter2@10.0.0.1:3128/x", "http://***@10.0.0.1:3128/x"),
        ("http://anna:hun ter2@10.0.0.1:3128", "http://***@10.0.0.1:3128"),
        ("http:/anna:hun ter2@10.0.0.1:3128", "http:/***@10.0.0.1:3128"),
        ("http://hunter2@10.0.0.1:3128", "http://***@10.0.0.1:3128"),
        ("anna:hunter2@10.0.0.1:3128", "***@10.0.0.1:3128"),
        ("dataset: 'anna:hun ter2@10.0.0.1:3128'", "dataset: '***@10.0.0.1:3128'"),
        ("12:00:07 through http://anna:hunter2@h:1", "12:00:07 through http://***@h:1"),
        ("host=h password='hun ter2' dbname=d", "host=h password=*** dbname=d"),
        ("{'password': 'hunter2', 'host': 'h'}", "{'password': ***, 'host': 'h'}"),
        ("X-MBX-APIKEY: hunter2", "X-MBX-APIKEY: ***"),
        ("Proxy-Authorization: Basic YW5uYTpodW50ZXIy", "Proxy-Authorization: ***"),
        ("sent Basic YW5uYTpodW50ZXIy", "sent Basic ***"),
        (r"host=h password=hun\ ter2 dbname=d", "host=h password=*** dbname=d"),
        (r"password=hun\\ ter2", "password=*** ter2"),
        (r'password=""hun\ ter2 dbname=d', "password=*** dbname=d"),
        ("password='hun'ter2 dbname=d", "password=*** dbname=d"),
        ("password='hun',ter2 dbname=d", "password=*** dbname=d"),
        ("{'password': 'hunter2'}", "{'password': ***}"),
        ("['password', secret='hunter2'], 3", "['password', secret=***], 3"),
        ('X-MBX-APIKEY: "mZ"RlEß', "X-MBX-APIKEY: ***"),
        ("OK-ACCESS-SIGN: hun ter2\nAccept: */*", "OK-ACCESS-SIGN: ***\nAccept: */*"),
        ("x-auth-token : hunter2", "x-auth-token : ***"),
        ("{'OK-ACCESS-KEY': 'hunter2', 'Accept': '*/*'}", "{'OK-ACCESS-KEY': ***, 'Accept': '*/*'}"),
        (r'said "{\"token\": \"hunter2\"}"', r'said "{\"token\": ***'),
        ("proxy.example:3128:anna:ze bra", "proxy.example:3128:***"),
        ("'proxy.example:3128:anna:ze bra' is none", "'proxy.example:3128:***' is none"),
        ("'proxy.example:3128:anna:ze'b ra' is none", "'proxy.example:3128:***' is none"),
        ("'proxy.example:3128:anna:ze bra", "'proxy.example:3128:***"),
        ("GET /order?symbol=BTCUSDT&signature=hunter2", "GET /order?symbol=BTCUSDT&signature=***"),
    ],
)
def test_what_is_cut_out(text: str, redacted: str) -> None:
    assert redact(text) == redacted


@pytest.mark.parametrize("separator", ["=", " = ", ": "])
@pytest.mark.parametrize(
    "name",
    [
        *("pass", "PW", "db_pass", "db-pw", "sign", "signature", "credential", "credentials"),
        *("private_key", "private-key", "privateKey", "access_key", "accesskey"),
        *("PGPASSWORD", "sslpassword", "client_secret", "scram_client_key", "scram_server_key"),
    ],
)
def test_names_of_settings_whose_value_is_cut_out(name: str, separator: str) -> None:
    assert redact(f"with {name}{separator}hunter2") == f"with {name}{separator}***"


@pytest.mark.parametrize(
    "text",
    [
        "passed = 3",
        "passes: 3",
        "bypass = on, compass: north, surpass=1",
        "design: x",
        "assigned = 3, signed: yes, signal=9, resign: no",
        "significant = 4",
        "SIGN/USDT:USDT and PASS/USDT:USDT",
        "the sign is -1, the pass is free",
        "monkey: 1, key = open_time, keys: 3",
        "12:00:07 10.0.0.1:3128: refused: connect",
        "[2001:db8::1]:1080: timed out: after 3 s",
        "cannot reach http://10.0.0.1:3128/: Connection refused",
        "binance-usdm ohlcv BTCUSDT 1m: 499 rows through Proxy 1",
        "BTC/USDT:USDT: unknown symbol; did you mean 'BTCUSDT'?",
        "start: '2026-06-01T12:00' has no time zone; write '2026-06-01T12:00Z'",
        "12:00:07 WARNING ProxyError through Proxy 2, attempt 8: 407: check its user and password",
        "/data/market.duckdb: IO Error: Could not set lock on file",
    ],
)
def test_what_holds_no_credential_stays_as_it_is(text: str) -> None:
    assert redact(text) == text


@given(PASSWORDS, PASSWORDS)
def test_a_secret_shows_at_most_where_it_leads(before: str, password: str) -> None:
    assume(password not in "Secret('postgresql://***@db.example:5432')")
    for text in (password, f"{before}{password}", f"postgresql://ann:{password}@db.example:5432/market"):
        secret = Secret(text)
        shown = f"{secret} {secret!r} {Egress('Proxy 1', secret)} {attrs.asdict(Egress('Proxy 1', secret))}"
        assert password not in shown


def test_a_secret_is_copied_but_not_pickled() -> None:
    egress = Egress("Proxy 1", Secret("http://anna:hunter2@10.0.0.1:3128"))
    assert copy.deepcopy(egress) == egress
    with pytest.raises(TypeError, match="pass the configuration anew"):
        pickle.dumps(egress)
