"""Plug-ins that look installed."""

from __future__ import annotations

from pathlib import Path

__all__ = ["install_plug_in"]


def install_plug_in(folder: Path, group: str, *, name: str, target: str) -> None:
    """Write what pip would write into a folder of `sys.path` for a package with one entry point."""
    info = folder / f"{name}-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {target}\n")
