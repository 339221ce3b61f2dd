#!/bin/sh
# What the tests under a real PID 1 need beyond systemd itself; without it they are skipped.
set -u
if command -v systemd-nspawn > /dev/null; then exit 0; fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
    echo "systemd-nspawn is not installed and cannot be: tests under a real PID 1 will be skipped" >&2
    exit 0
fi
apt-get install --yes --quiet --no-install-recommends systemd-container > /dev/null ||
    echo "systemd-container cannot be installed: tests under a real PID 1 will be skipped" >&2
