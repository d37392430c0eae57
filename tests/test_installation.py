"""What an installation brings on each system, and what is said where a package is missing."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest
from packaging.requirements import Requirement

PROJECT = Path(__file__).parents[1]
CONFIG = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS: dict[str, list[str]] = CONFIG["optional-dependencies"]


def brought(*extras: str, **system: str) -> set[str]:
    """Return the packages, such as `psycopg[binary]`, that the core and extras name for a system."""
    texts = [*CONFIG["dependencies"], *(text for extra in extras for text in EXTRAS[extra])]
    found = set[str]()
    for wanted in map(Requirement, texts):
        if wanted.marker is not None and not wanted.marker.evaluate(system):
            continue
        if wanted.name == "marketfetch":
            found |= brought(*wanted.extras, **system)
        else:
            found |= {f"{wanted.name}[{extra}]" for extra in wanted.extras} or {wanted.name}
    return found


def run_without(packages: Sequence[str], code: str) -> str:
    """Run code in an interpreter that has none of the packages; return what it prints."""
    missing = "".join(f"sys.modules[{package!r}] = None\n" for package in packages)
    program = f"import sys\n{missing}{code}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("system", "machine", "has_wheel"),
    [
        ("win32", "AMD64", True),
        ("win32", "ARM64", False),
        ("darwin", "arm64", True),
        ("darwin", "x86_64", True),
        ("linux", "x86_64", True),
        ("linux", "aarch64", True),
        ("linux", "s390x", False),
    ],
)
def test_psycopg_has_a_libpq_where_it_has_a_wheel(system: str, machine: str, has_wheel: bool) -> None:
    found = brought(sys_platform=system, platform_machine=machine)
    assert ("psycopg[binary]" in found) == has_wheel
    assert "psycopg[pool]" in found


def test_windows_on_arm_leaves_out_what_it_has_no_wheel_for() -> None:
    elsewhere, there = (
        brought("all", sys_platform="win32", platform_machine=machine) for machine in ("AMD64", "ARM64")
    )
    assert elsewhere - there == {"isal", "psycopg[binary]", "pyarrow"}


def test_all_has_every_extra_and_no_test_tools() -> None:
    system = {"sys_platform": "linux", "platform_machine": "x86_64"}
    others = EXTRAS.keys() - {"all", "testing"}
    assert brought("all", **system) == brought(*others, **system)
    assert brought("testing", **system) - brought("all", **system) == {"hypothesis", "pytest", "trustme"}


def test_every_requirement_has_a_lowest_version() -> None:
    command = [sys.executable, "tools/lowest.py"]
    lowest = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    texts = [*CONFIG["dependencies"], *(text for extra in EXTRAS.values() for text in extra)]
    wanted = {Requirement(text).name for text in texts} - {"marketfetch", "pytest"}
    assert wanted == {line.partition("==")[0] for line in lowest.splitlines() if "==" in line}


SIMULATION = """
import marketfetch as mf, marketfetch.testing.demo
from marketfetch.testing import GeneratedMarket, SimulatedExchange
with SimulatedExchange(GeneratedMarket(["BTCUSDT"])) as exchange:
    day = {"interval": "1h", "start": "2026-06-01", "end": "2026-06-02"}
    print(len(mf.fetch("binance-usdm", "ohlcv", "BTCUSDT", base_url=exchange.base_url, **day)))
"""


def test_the_simulator_needs_no_test_tools() -> None:
    assert run_without(["hypothesis", "pytest", "trustme"], SIMULATION) == "24\n"


SIMULATOR = """
    import marketfetch.testing
"""
OVER_HTTPS = """
    from marketfetch.testing import GeneratedMarket, SimulatedExchange, SimulatorOptions
    SimulatedExchange(GeneratedMarket(["BTCUSDT"]), SimulatorOptions(tls=True)).start()
"""
WITHOUT_LIBPQ = """
    import ctypes.util, marketfetch as mf
    ctypes.util.find_library = lambda name: None
    mf.PostgresSink("postgresql://localhost/x")
"""


@pytest.mark.parametrize(
    ("packages", "code", "says"),
    [
        (["httptools"], SIMULATOR, "testing: needs httptools; pip install 'marketfetch[simulator]'"),
        (["trustme"], OVER_HTTPS, "tls: needs trustme; pip install 'marketfetch[testing]'"),
        (
            ["psycopg_binary", "psycopg_c"],
            WITHOUT_LIBPQ,
            "pip install 'psycopg[binary,pool]'. Where",
        ),
    ],
    ids=["httptools", "trustme", "libpq"],
)
def test_what_needs_a_missing_package_says_what_to_install(packages: list[str], code: str, says: str) -> None:
    caught = "except ConfigurationError as error:\n    print(error)"
    program = f"from marketfetch.errors import ConfigurationError\ntry:\n{code}\n{caught}"
    assert says in run_without(packages, program)
