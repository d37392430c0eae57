#!/bin/sh
# bootstrap.sh VENV GROUP [OPTION...]: create the virtual environment VENV and install marketfetch with the
# dependency group GROUP and further options of pip. GROUP `run` is marketfetch with its extras alone.
# Needs Python >= 3.11, which PYTHON may name, and a package index that pip can reach.
set -eu
VENV=$1
GROUP=$2
shift 2

say() { printf '%s\n' "$*" >&2; }

# The first interpreter that runs and is new enough; version managers leave launchers that do not run.
find_python() {
    for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    say "marketfetch needs Python 3.11 or newer${PYTHON:+, which $PYTHON is not}. Install it, or name it:"
    say "make PYTHON=/path/to/python3"
    return 1
}

make_environment() {
    python=$(find_python)
    "$python" -m venv "$VENV" >/dev/null 2>&1 && return
    rm -rf "$VENV" # the next call would take an incomplete environment for a complete one
    "$python" -m virtualenv --quiet "$VENV" 2>/dev/null && return
    rm -rf "$VENV"
    say "$python cannot make virtual environments here. Install its venv module"
    say "(Debian, Ubuntu: apt-get install python3-venv; else: $python -m pip install virtualenv) and try again."
    return 1
}

[ -x "$VENV/bin/python" ] || make_environment

pip() { "$VENV/bin/python" -m pip --quiet --disable-pip-version-check "$@"; }

say "Setting up $VENV ($GROUP), once ..."
pip install --upgrade 'pip>=25.1' # the first that knows --group
if [ "$GROUP" = run ]; then
    pip install "$@" --editable '.[all]'
else
    pip install "$@" --editable '.[all]' --group "$GROUP"
fi
