#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# limit: 300
# The stream of a guest's root (favo-init --save) has the root and nothing that
# is mounted on it, and touches neither. In a namespace, without a guest.
set -eu
. "$(dirname "$0")/../lib/build.sh"
build=${FAVO_BUILD:-$build_root/gcc}
[ -n "${FAVO_BUILD:-}" ] || build_in gcc --enable-werror CC=gcc
init=$build/images/guest/favo-init
[ "$(id -u)" = 0 ] || { echo "1..0 # SKIP needs root for mounts"; exit 0; }
unshare -m true 2>/dev/null || { echo "1..0 # SKIP no mount namespaces here"; exit 0; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/root/bin" "$work/root/etc" "$work/root/home/alice" "$work/root/proc" \
	"$work/root/run" "$work/home"
cp "$init" "$work/root/bin/favo-init"
echo kept >"$work/root/etc/file"
echo 'below the mount' >"$work/root/home/alice/below"
echo 'my thesis' >"$work/home/thesis"
echo 1..4
code=0
unshare -m sh -c 'mount --make-rprivate / && cd "$1" && mount --bind root root &&
	mount --bind home root/home/alice && mount -t tmpfs none root/run && mkdir root/run/favo &&
	mount -t proc proc root/proc && exec chroot root /bin/favo-init --save' - "$work" \
	>"$work/stream" 2>"$work/said" || code=$?
if [ $code = 0 ]; then echo "ok 1 - the root is read"; else
	echo "not ok 1 - the root is read"; sed 's/^/# /' "$work/said"; fi
tar tf "$work/stream" 2>&1 | sed 's|^\./||; s|/$||' | sort >"$work/names"
printf '%s\n' '' bin bin/favo-init etc etc/file home home/alice home/alice/below proc run | sort >"$work/want"
if cmp -s "$work/names" "$work/want"; then echo "ok 2 - it has the root alone"; else
	echo "not ok 2 - it has the root alone"; diff "$work/want" "$work/names" | sed 's/^/# /'; code=1; fi
if [ "$(cat "$work/home/thesis")" = 'my thesis' ]; then echo "ok 3 - a mounted home is as it was"; else
	echo "not ok 3 - a mounted home is as it was"; code=1; fi
if tar xOf "$work/stream" ./etc/file | grep -qx kept; then echo "ok 4 - with contents"; else
	echo "not ok 4 - with contents"; code=1; fi
exit $code
