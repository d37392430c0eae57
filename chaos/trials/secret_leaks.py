"""Search all output of failing runs for credentials, in every form that they can take."""

from __future__ import annotations

import base64
import json
import os
import random
import string
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote, quote_plus

import attrs

from chaos.harness.trials import Effort, Result, Trial
from chaos.trials.secret_leaks_in_objects import objects_are_silent
from marketfetch.redaction import redact
from marketfetch.testing import GeneratedMarket, LocalProxy, SimulatedExchange, SimulatorOptions

__all__ = ["any_text_is_redacted", "commands_are_silent", "secret_leaks"]

PASSWORDS = (
    "zebra-1",
    "zebra1/zebra2@zebra3",
    "zebra1@zebra2:zebra3#zebra4?zebra5=zebra6&zebra7",
    "zebra1 zebra2",
    "zebra1%zebra2%zebra3",
    "zebra1'zebra2\"zebra3\\zebra4",
    "žebra-zebra-斑马",
    "12/zebra",
    "zebra://zebra@zebra",
)
"""Each part of each password contains the word "zebra", which occurs nowhere else."""
_PIECE = "zebra"
_USER = "okapi"


def secret_leaks(effort: Effort) -> Iterator[Result]:
    """Search commands, objects and texts for credentials."""
    yield commands_are_silent(effort)
    yield objects_are_silent(PASSWORDS, _PIECE)
    yield any_text_is_redacted(effort)


def commands_are_silent(effort: Effort) -> Result:
    """Run command lines that fail in every way, with verbose logging, and search their output."""
    trial = Trial("a failing command shows no credential in any encoding", "commands")
    rng = effort.rng("commands")
    with (
        SimulatedExchange(GeneratedMarket(["BTCUSDT"]), SimulatorOptions(limits=None)) as exchange,
        LocalProxy(credentials=("somebody", "else")) as proxy,
        TemporaryDirectory(prefix="marketfetch-leaks-") as folder,
        ThreadPoolExecutor(4) as pool,
    ):
        calls = [
            call
            for number, password in enumerate(PASSWORDS)
            for call in _calls(password, proxy.address[1], Path(folder) / str(number))
        ]
        chosen = rng.sample(calls, min(len(calls), effort.choose(10, 30, len(calls))))
        for call, text in zip(
            chosen, pool.map(lambda call: call.run(exchange.base_url), chosen), strict=True
        ):
            with trial.attempt(f"{call}, seed {effort.seed}"):
                for form in _forms(call.password):
                    at = text.find(form)
                    assert at < 0, f"{form!r} in …{text[max(0, at - 200) : at + 60]}…"
                assert "Traceback" not in text, text
    return trial.result()


def _forms(password: str) -> set[str]:
    """Return every encoding of the password: percent, form, JSON, base64 with the user, and plain."""
    pairs = (f"{_USER}:{password}", f"{quote(_USER)}:{quote(password, safe='')}", password)
    coded = {base64.b64encode(pair.encode()).decode().rstrip("=") for pair in pairs}
    return {
        password,
        quote(password, safe=""),
        quote_plus(password),
        json.dumps(password)[1:-1],
        *coded,
        _PIECE,
    }


@attrs.frozen
class _Call:
    """A command line with a credential, at the right place or at a wrong one."""

    password: str
    words: Sequence[str]
    environment: dict[str, str] = attrs.field(factory=dict)

    def run(self, base_url: str) -> str:
        """Run the command and return standard output and standard error."""
        usual = ["backfill", "--exchange", "binance-usdm", "--symbol", "BTCUSDT", "--start", "2026-06-01"]
        usual += [
            "--end",
            "2026-06-01T01:00Z",
            "--verbose",
            "--json",
            "--to",
            "memory:",
            "--base-url",
            base_url,
        ]
        words = self.words if self.words[0] in {"coverage", "first"} else [*usual, *self.words]
        words = words[1:] if words[0] == "first" else words
        run = subprocess.Popen(
            [sys.executable, "-X", "dev", "-m", "marketfetch", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONASYNCIODEBUG": "1", **self.environment},
        )
        try:
            # A run without a working proxy retries for long; its first 3 s of output are enough.
            out, _ = run.communicate(timeout=3)
        except subprocess.TimeoutExpired:
            run.terminate()
            out, _ = run.communicate(timeout=20)
        return out.decode(errors="replace")


def _calls(password: str, port: int, folder: Path) -> Iterator[_Call]:
    coded, address = quote(password, safe=""), f"127.0.0.1:{port}"
    folder.mkdir()
    for pw in dict.fromkeys([password, coded]):
        who = f"{_USER}:{pw}"
        urls = [
            f"http://{who}@{address}",
            f"socks5h://{who}@{address}",
            f"{address}:{who}",
            f"{who}@{address}",
        ]
        urls += [
            f"https://{who}@{address}",
            f"http://{who}@127.0.0.1:1",
            f"http://{who}@no.such.host.invalid:80",
        ]
        for url in [*urls, f"http://{who}@nowhere", f"ftp://{who}@{address}", f"http://{who}@h:99999", pw]:
            yield _Call(password, ["--proxy", url, "--no-direct"])
        dsns = [f"postgresql://{who}@127.0.0.1:1/db", f"postgresql://{who}@no.such.host.invalid/db"]
        dsns += [f"postgres://{_USER}@127.0.0.1:1/db?password={pw}", f"postgresql://{who}@h:port/db"]
        dsns += [f"postgresql:host=127.0.0.1 port=1 password={pw}", f"postgresql:///password={pw}"]
        for dsn in [*dsns, *(f"{kind}://{who}@h/db" for kind in ("sqlite", "duckdb", "parquet", "oracle"))]:
            yield _Call(password, ["--to", dsn])
            yield _Call(password, ["coverage", "--to", dsn])
        lines = folder / f"{len(pw)}.txt"
        lines.write_text(f"{address}:{who}\n{who}\nhttp://{who}@{address}\n")
        yield _Call(password, ["--proxies-from", str(lines), "--no-direct"])
        for url in (f"http://{who}@{address}", f"{who}@{address}"):
            for option in [
                "symbol",
                "exchange",
                "dataset",
                "interval",
                "start",
                "end",
                "base-url",
                "quote",
                "concurrency",
                "heartbeat",
                "certificate",
                "symbols-from",
                "proxies-from",
                "to",
            ]:
                yield _Call(password, [f"--{option}={url}"])
            yield _Call(password, ["--composite", f"MT={url},BTCUSDT"])
            yield _Call(password, ["first", "--proxy", url, "backfill"])
            yield _Call(password, ["first", url])
        for words in (
            [f"--passwrd={pw}"],
            ["--passwrd", pw],
            ["--proxy-password", pw],
            [f"--api-key={pw}"],
            [pw],
            ["--to=memory:", pw],
        ):
            yield _Call(password, words)
        yield _Call(password, ["--to", "postgresql://127.0.0.1:1/db"], {"PGPASSWORD": pw, "PGUSER": _USER})
        proxy = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), f"http://{who}@{address}")
        yield _Call(password, ["--symbol=NOTHING"], proxy)


def any_text_is_redacted(effort: Effort) -> Result:
    """Redact random texts that contain a user and a password as people write them."""
    trial = Trial("a password at a usual place of any text is redacted completely", "texts")
    rng = effort.rng("texts")
    for number in range(effort.choose(1_000, 100_000, 2_000_000)):
        written = _text(rng)
        with trial.attempt(f"number {number}, seed {effort.seed}"):
            text = redact(written.text)
            leak = written.leak(text)
            assert leak is None, f"{written.text!r} became {text!r}, with {leak!r} in it"
    return trial.result()


@attrs.frozen
class _Written:
    """A text with a password in it."""

    template: str
    user: str
    password: str
    """As in the text: with escapes where the format needs them."""

    @property
    def text(self) -> str:
        """The whole text."""
        return self._with(self.password)

    def leak(self, text: str) -> str | None:
        """Return a part of the password that `text` shows: at least half of it and four characters.

        A part that also occurs in the template, or in its redacted form, is no leak.
        """
        around = f"{self._with('')}\n{redact(self._with('~~~~'))}"
        size = max(4, len(self.password) // 2)
        pieces = (self.password[at : at + size] for at in range(len(self.password) - size + 1))
        return next((piece for piece in pieces if piece in text and piece not in around), None)

    def _with(self, password: str) -> str:
        return self.template.replace("{user}", self.user).replace("{password}", password)


_LETTERS = string.digits + string.ascii_letters + string.punctuation + "äßпароль斑马"
_USERS = _LETTERS.translate(str.maketrans("", "", ":@/'\"\\[]()=,#?"))
_WORDS = (
    "cannot reach http://{user}:{password}@proxy.example:3128: refused",
    "socks5h://{user}:{password}@[2001:db8::1]:1080",
    "dsn postgresql://{user}:{password}@db.example:5432/market?sslmode=require is wrong",
    "--proxy {user}:{password}@10.0.0.1:3128",
    "Proxy-Authorization: Basic {password}",
    "host=db.example pass={password} dbname=market",
    "pw={password}",
    "config {'private_key': {password}, 'user': '{user}'}",
    "GET /order?symbol=BTCUSDT&signature={password}",
    "credentials = {password}",
    "access_key={password} was refused",
)
"""Here a password is one word."""
_LINES = (
    "--proxy 10.0.0.1:3128:{user}:{password}",
    "X-MBX-APIKEY: {password}",
    "OK-ACCESS-SIGN: {password}\nAccept: */*",
)
"""Here a password ends with the line."""
_QUOTED = (
    "could not connect: host=db.example user={user} password='{password}' dbname=market",
    'config {"password": "{password}", "user": "{user}"}',
    "entry 'proxy.example:3128:{user}:{password}' is no proxy",
)
"""Here a password ends with the quote."""
_ESCAPED = ("host=db.example password={password} dbname=market", "sslpassword = {password}")
"""Here libpq's escapes mark spaces that belong to the password."""


def _text(rng: random.Random) -> _Written:
    """Return a random password in a random template, escaped as the template's format demands."""
    template = rng.choice((*_WORDS, *_LINES, *_QUOTED, *_ESCAPED))
    letters = _LETTERS if template in _WORDS else f"{_LETTERS}{' ' * 8}"
    user = "".join(rng.choices(_USERS, k=rng.randint(1, 16)))
    password = rng.choice(_LETTERS) + "".join(rng.choices(letters, k=rng.randint(3, 15)))
    if template in _QUOTED:
        password = password.translate(str.maketrans("\\'\"", "xyz"))
    if template in _ESCAPED:
        password = "".join(f"\\{each}" if each in "\\' " else each for each in password)
    return _Written(template, user, password)
