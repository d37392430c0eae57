from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfetch.errors import ConfigurationError
from marketfetch.proxies.parsing import parse_proxy
from marketfetch.proxies.pool import RotatingProxies


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("10.0.0.1:3128", "http://10.0.0.1:3128"),
        (" http://Proxy.Example:3128/ ", "http://proxy.example:3128"),
        ("HTTPS://10.0.0.1:443", "https://10.0.0.1:443"),
        ("socks5://anna:pw@10.0.0.1:1080", "socks5://anna:pw@10.0.0.1:1080"),
        ("socks5h://10.0.0.1:01080", "socks5h://10.0.0.1:1080"),
        ("anna:pw@10.0.0.1:3128", "http://anna:pw@10.0.0.1:3128"),
        ("anna@10.0.0.1:3128", "http://anna@10.0.0.1:3128"),
        ("10.0.0.1:3128:anna:pw", "http://anna:pw@10.0.0.1:3128"),
        ("http://10.0.0.1:3128:anna:p:w", "http://anna:p%3Aw@10.0.0.1:3128"),
        ("http://anna:p@w/x#?@10.0.0.1:3128", "http://anna:p%40w%2Fx%23%3F@10.0.0.1:3128"),
        ("http://anna:p%40w@10.0.0.1:3128", "http://anna:p%40w@10.0.0.1:3128"),
        ("[2001:db8::1]:3128", "http://[2001:db8::1]:3128"),
        ("[2001:db8::1]:3128:anna:pw", "http://anna:pw@[2001:db8::1]:3128"),
    ],
)
def test_forms_people_write(text: str, url: str) -> None:
    assert parse_proxy(text, "entry 1").reveal() == url
    assert parse_proxy(url, "entry 1").reveal() == url


@pytest.mark.parametrize(
    "text",
    [
        "",
        "http://",
        "10.0.0.1",
        "http://anna:hunter2@10.0.0.1",
        "ftp://anna:hunter2@10.0.0.1:21",
        "socks4://anna:hunter2@10.0.0.1:1080",
        "10.0.0.1:99999:anna:hunter2",
        "10.0.0.1:0",
        "anna:hunter2:10.0.0.1:3128",
        "10.0.0.1:3128@anna:hunter2",
        "http://anna:hunter2@10.0.0.1:port",
        "http://anna:hunter2@10.0.0.1:3128/path",
        "http://anna:hunter2@10.0.0.1:3128 hunter2",
        "http://anna:hunter2@[2001]:3128",
        "...:89",
        "http://anna:hunter2@proxy..example:3128",
        "http://anna:hunter2\udcff@10.0.0.1:3128",
        "10.0.0.1:3128:anna:hunter2\ud800",
    ],
)
def test_what_is_malformed_is_named_without_its_content(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"entry 3 is malformed .*http://user:password@") as caught:
        RotatingProxies(["10.0.0.1:1", "10.0.0.2:1", text])
    shown = str(caught.value)
    assert "hunter2" not in shown
    assert "anna" not in shown


@given(st.text(max_size=40))
def test_any_text_is_either_a_proxy_or_refused(text: str) -> None:
    try:
        url = parse_proxy(text, "entry 1").reveal()
    except ConfigurationError:
        return
    assert parse_proxy(url, "entry 1").reveal() == url


def test_a_file_of_proxies(tmp_path: Path) -> None:
    path = tmp_path / "proxies.txt"
    path.write_text(
        "\ufeff# mine\n\nhttp://anna:pw#1@10.0.0.1:3128  # the first\n10.0.0.2:3128\n  \n10.0.0.2:3128\n",
        "utf-8",
    )
    pool = RotatingProxies.from_file(path, direct=False)
    assert [report.name for report in pool.statistics()] == ["Proxy 1", "Proxy 2"]


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00", b"10.0.0.1:1\n\nhunter2\n"])
def test_a_file_that_is_no_use_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "proxies.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"proxies: (line 3 of )?.*txt") as caught:
        RotatingProxies.from_file(path)
    assert "hunter2" not in str(caught.value)
