#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# A lab that ends, or that is interrupted while it starts, leaves no process,
# mount, namespace or link on the machine. Uses a lab directory of its own.
# limit: 240
set -eu
. "$(dirname "$0")/../lib/lab.sh"
plan 4

own=$lab_dir/second
mkdir -p "$own"
ln -sfn "$lab_dir/assets" "$own/assets"
ln -sfn "$lab_dir/guest-kernel" "$own/guest-kernel"
export FAVO_LAB_DIR=$own
state() {
	ip -o link | sed -n 's/^[0-9]*: \(lab0\|tap-n[0-9]*\).*/link \1/p'
	awk -v own="$own" '$1 ~ /^lab-/ || index($2, own) {print "mount " $2}' /proc/mounts
	# By namespace, which tells one lab's processes from the other's.
	for p in /proc/[0-9]*; do
		case $(cat "$p/comm" 2>/dev/null) in
		qemu-system*|slurmctld|munged|host.sh|unshare|favod)
			echo "process $(cat "$p/comm") $(readlink "$p/ns/net")" ;;
		esac
	done 2>/dev/null || :
}
state | sort >"$out/before"
second() { timeout -k 5 120 "$top/tests/lab/lab" "$@" </dev/null; }
same() { state | sort | diff "$out/before" -; }

expect "a second lab starts in its own directory" 0 second up -n 1
second down
expect "after its end the machine is as before" 0 retry 10 same

set -m
"$top/tests/lab/lab" up -n 1 >"$out/interrupted" 2>&1 </dev/null &
up=$!
set +m
retry 30 test -S "$own/run/n1.qmp" || :
kill -INT -- "-$up" 2>/dev/null || kill -INT "$up"
code=0
wait "$up" || code=$?
if [ "$code" = 130 ]; then ok "an interrupted start ends"; else
	not_ok "an interrupted start ends" "exit code $code" "$(cat "$out/interrupted")"
fi
expect "and leaves the machine as before" 0 retry 10 same
second down
rm -rf "$own"
