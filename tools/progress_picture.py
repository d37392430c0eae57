"""Draw docs/assets/progress.svg: the terminal in the middle of `marketfetch demo`.

    pip install pyte && python tools/progress_picture.py docs/assets/progress.svg

The command runs on a pseudo terminal. rich draws what the terminal shows when a proxy has just died.
"""

from __future__ import annotations

import fcntl
import io
import os
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pyte
from rich.console import Console
from rich.terminal_theme import DIMMED_MONOKAI
from rich.text import Text

COLUMNS, LINES = 112, 40
PROGRESS = re.compile(r"writing .* (\d+) %")


def screen_of_demo() -> list[str]:
    """Run the demonstration, and return the lines of the terminal while a proxy rests."""
    terminal, end = os.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    screen = pyte.Screen(COLUMNS, LINES)
    stream = pyte.ByteStream(screen)
    found: list[str] = []
    command = [sys.executable, "-m", "marketfetch", "demo"]
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS), "LINES": str(LINES)}
    with subprocess.Popen(  # noqa: S603  # our own command
        command, stdin=end, stdout=end, stderr=end, env=environment
    ) as process:
        os.close(end)
        try:
            while piece := os.read(terminal, 4096):
                stream.feed(piece)
                lines = [line.rstrip() for line in screen.display]
                writing = any(PROGRESS.search(line) for line in lines)
                if writing and not found and any("Proxy 2" in line and "resting" in line for line in lines):
                    found = lines
        except OSError:  # the terminal is closed when the process has ended
            pass
        finally:
            os.close(terminal)
            process.wait()
    return found


def picture(lines: list[str]) -> str:
    """Return the SVG of lines on a terminal; it loads no font from elsewhere."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    text = "\n".join(["$ marketfetch demo", *lines]).rstrip()
    console.print(Text(text), soft_wrap=True)
    drawn = console.export_svg(title="marketfetch demo", theme=DIMMED_MONOKAI)
    without_fonts = re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL)
    return re.sub(r"font-family: [^;]*;", "font-family: monospace;", without_fonts)


if __name__ == "__main__":
    shown = screen_of_demo()
    if not shown:
        sys.exit("no proxy rested during the demonstration; run it again")
    Path(sys.argv[1]).write_text(picture(shown), "utf-8")
