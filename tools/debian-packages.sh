#!/usr/bin/env bash
# Installs the Debian packages the tests need (tools/debian-packages.txt), where it may: as root,
# with apt. Elsewhere it names what is missing and goes on; the test run then names every test it
# leaves out. Never starts a service: the tests start their own on free ports.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin # mosquitto is there, and not on every user's path

say() { printf 'debian packages: %s\n' "$*" >&2; }

# the packages whose command is not there
missing() {
  local command package
  while read -r command package; do
    [[ -z $command || $command == \#* ]] || command -v "$command" >/dev/null || printf '%s\n' "$package"
  done <tools/debian-packages.txt | sort -u
}

mapfile -t packages < <(missing)
[[ ${#packages[@]} -gt 0 ]] || exit 0

if [[ $EUID -ne 0 ]] || ! command -v apt-get >/dev/null; then
  say "missing: ${packages[*]}"
  say "not installed, since this is not root on a machine with apt-get; the tests that need them" \
    "are left out and named at the end of the run (apt-get install ${packages[*]})"
  exit 0
fi

# a package must not start its service: invoke-rc.d and deb-systemd-invoke ask this script first
policy=/usr/sbin/policy-rc.d
if [[ ! -e $policy ]]; then
  trap 'rm -f "$policy"' EXIT
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
fi

install() {
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq || say "apt-get update failed; trying with the package lists as they are"
  apt-get install -qq -y --no-install-recommends -o DPkg::Lock::Timeout=120 "${packages[@]}"
}

say "installing ${packages[*]}"
installed=yes
install </dev/null >&2 || installed=no

# nor at the next boot
if [[ $installed == yes && " ${packages[*]} " == *" mosquitto "* ]] && command -v systemctl >/dev/null; then
  systemctl --quiet disable mosquitto.service </dev/null >&2 ||
    say "mosquitto.service may start at the next boot: systemctl disable mosquitto"
fi

mapfile -t packages < <(missing)
if [[ ${#packages[@]} -gt 0 ]]; then
  say "could not be installed (see above): ${packages[*]}"
  say "the tests that need them are left out and named at the end of the run"
fi
