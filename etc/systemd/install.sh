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
new=$lib.new old=$lib.old
rm -rf "$new" "$old"
"$python" -m venv "$build/venv"  # for its pip
"$build/venv/bin/python" -m pip install --quiet --disable-pip-version-check --target "$new" "$build[server,metrics]"
rm -rf "$new/bin"
mkdir -p "$new/bin" "$dest$prefix/bin"
for name in espilot fake-payload; do
    sed "1s|.*|#!$base|" "$root/bin/$name" > "$new/bin/$name"
    chmod 755 "$new/bin/$name"
    ln -sf "../lib/espilot/bin/$name" "$dest$prefix/bin/$name"
done

# The former program stays until the new one is whole.
if [ -d "$lib" ]; then mv "$lib" "$old"; fi
mv "$new" "$lib"
rm -rf "$old"

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
for page in "$root"/docs/man/*.[1-9]; do
    put "$page" "$prefix/share/man/man${page##*.}/$(basename "$page")"
done
put "$root/etc/prometheus-alerts.yml" "$prefix/share/espilot/prometheus-alerts.yml"

cat <<EOF
installed below $dest$prefix. Next, as root:
  systemd-sysusers && systemd-tmpfiles --create && systemctl daemon-reload
  cp $prefix/share/espilot/service.toml /etc/espilot/espilot.toml   # then edit it
  espilot config check && systemctl enable --now espilot@1
EOF
