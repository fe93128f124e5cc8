#!/usr/bin/env bash
# Makes .venv, or brings it up to date: `environment.sh runtime` for what it takes to run
# Fleetgate, `environment.sh test` for what it takes to work on it.
#
# Does nothing when nothing changed: a stamp in .venv holds a digest of everything the result
# depends on, the place of the checkout and the Python version among it. Contents count, not
# modification times, so that a fresh checkout of the same commit changes nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
venv=.venv
kind=${1:?usage: environment.sh runtime|test}

say() { printf 'environment: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

case $kind in
  runtime) requirements=requirements.txt ;;
  test) requirements=requirements-test.txt ;;
  *) fail "\`$kind\` is neither \`runtime\` nor \`test\`" ;;
esac

digest() {
  { pwd -P; "$venv/bin/python" -V
    cat requirements.txt requirements-test.txt pyproject.toml src/fleetgate/__init__.py
  } | sha256sum | cut -d ' ' -f 1
}

works() { [[ -x $venv/bin/python ]] && "$venv/bin/python" -c '' 2>/dev/null; }

if works && [[ -f $venv/.$kind && $(<"$venv/.$kind") == "$(digest)" ]]; then
  exit 0
fi

started=$SECONDS

if ! { works && "$venv/bin/python" -c 'import pip' 2>/dev/null; }; then
  command -v "$python" >/dev/null ||
    fail "there is no \`$python\`: install Python 3.11 or later (Debian: apt-get install python3 python3-venv)"
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$("$python" -V) is too old: Python 3.11 or later is needed (name another with PYTHON=...)"
  if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
    if [[ $EUID -eq 0 && $(command -v "$python") == /usr/bin/* ]] && command -v apt-get >/dev/null; then
      say "installing the Debian package python3-venv"
      apt-get update -qq
      DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends python3-venv >&2
    else
      fail "\`$python\` cannot make virtual environments: install the package python3-venv" \
        "(Debian, Ubuntu: apt-get install python3-venv), then run make again"
    fi
  fi
  say "making $venv with $("$python" -V)"
  "$python" -m venv --clear "$venv"
fi

rm -f "$venv/.runtime" "$venv/.test"
pip=("$venv/bin/python" -m pip --disable-pip-version-check --quiet install)
say "installing $requirements"
"${pip[@]}" --require-hashes --requirement "$requirements"
"${pip[@]}" --no-deps --no-build-isolation --editable .

# requirements-test.txt holds everything of requirements.txt
digest >"$venv/.runtime"
[[ $kind == runtime ]] || cp "$venv/.runtime" "$venv/.test"
say "ready in $((SECONDS - started)) s"
