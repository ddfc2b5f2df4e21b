#!/usr/bin/env bash
# Installs the locked packages, then this project, into .venv: with uv, or with pip where uv cannot
# be had. Only python3 with venv is needed.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}

fail() {
    echo "error: $*" >&2
    exit 1
}

command -v "$python" >/dev/null || fail "$python is not installed: install Python 3.11 or later"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$python is older than 3.11: name a newer one, as in 'make setup PYTHON=python3.12'"
"$python" -c 'import venv, ensurepip' 2>/dev/null ||
    fail "$python has no venv module: install it (on Debian: apt install python3-venv)"

# uv itself, at the version and with the hashes of the lock. It stays outside .venv, which it fills.
get_uv() {
    local wanted
    wanted=$(sed -n '/^uv==/,/[^\\]$/p' requirements.lock)
    [ "$(cat .tools/requirements.txt 2>/dev/null)" = "$wanted" ] && [ -x .tools/bin/uv ] && return
    rm -rf .tools
    "$python" -m venv .tools
    echo "$wanted" >.tools/requirements.txt
    .tools/bin/pip install --quiet --disable-pip-version-check --require-hashes -r .tools/requirements.txt || {
        rm -rf .tools
        return 1
    }
}

# A platform may be running from .venv: it is brought up to date in place, not made anew.
usable() {
    .venv/bin/python -c '' 2>/dev/null
}

with_uv() {
    { usable || .tools/bin/uv venv --quiet --clear --python "$python" .venv; } &&
        VIRTUAL_ENV=.venv .tools/bin/uv pip install --quiet --require-hashes -r requirements.lock &&
        VIRTUAL_ENV=.venv .tools/bin/uv pip install --quiet --no-deps --no-build-isolation -e .
}

with_pip() {
    "$python" -m venv --clear .venv &&
        .venv/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock &&
        .venv/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
}

{ get_uv && with_uv; } || {
    echo "uv could not install the packages (it does not read pip's configuration); using pip, which is slower" >&2
    with_pip
}
