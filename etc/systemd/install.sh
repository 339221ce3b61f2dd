#!/bin/sh
# Install the pilot as a service: `install.sh PYTHON DESTDIR PREFIX`. The program and all that it
# needs go below PREFIX/lib/espilot, for that Python; nothing else of the system is touched.
set -eu
python=$1 dest=$2 prefix=$3
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
lib=$dest$prefix/lib/espilot

# The interpreter itself, not a virtual environment of the one who installs.
base=$("$python" -c 'import os, sys; print(os.path.realpath(sys.executable))')
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
cp -R "$root/espilot" "$root/setup.py" "$root/pyproject.toml" "$build/"
rm -rf "$lib"
"$python" -m venv "$build/venv"  # for its pip
"$build/venv/bin/python" -m pip install --quiet --disable-pip-version-check --target "$lib" "$build[server,metrics]"
rm -rf "$lib/bin"
mkdir -p "$lib/bin" "$dest$prefix/bin"
for name in espilot fake-payload; do
    sed "1s|.*|#!$base|" "$root/bin/$name" > "$lib/bin/$name"
    chmod 755 "$lib/bin/$name"
    ln -sf "../lib/espilot/bin/$name" "$dest$prefix/bin/$name"
done

put() { install -D -m 644 "$1" "$dest$2"; }
units=$prefix/lib/systemd/system
for unit in espilot@.service espilot.target espilot.slice; do
    sed "s|/usr/bin/espilot|$prefix/bin/espilot|" "$here/$unit" > "$build/$unit"
    put "$build/$unit" "$units/$unit"
done
put "$here/espilot.sysusers" "$prefix/lib/sysusers.d/espilot.conf"
put "$here/espilot.tmpfiles" "$prefix/lib/tmpfiles.d/espilot.conf"
for file in "$here"/examples/*.conf; do
    put "$file" "$prefix/share/espilot/systemd/$(basename "$file")"
done
put "$here/espilot.logrotate" "$prefix/share/espilot/logrotate"
put "$here/espilot.env" "$prefix/share/espilot/espilot.env"
put "$here/service.toml" "$prefix/share/espilot/service.toml"
put "$root/etc/espilot.toml" "$prefix/share/espilot/espilot.toml"
put "$root/etc/prometheus-alerts.yml" "$prefix/share/espilot/prometheus-alerts.yml"

cat <<EOF
installed below $dest$prefix. Next, as root:
  systemd-sysusers && systemd-tmpfiles --create && systemctl daemon-reload
  cp $prefix/share/espilot/service.toml /etc/espilot/espilot.toml   # then edit it
  espilot config check && systemctl enable --now espilot@1
EOF
