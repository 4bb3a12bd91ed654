#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Snapshots on a real /dev/kvm in a lab node: a warm guest is saved, others start
# from it with identities, randomness, clocks, disks and networks of their own;
# damaged files are refused.
# limit: 420
set -eu
. "$(dirname "$0")/../lib/build.sh"
. "$top/tests/lib/guest.sh"
build=${FAVO_BUILD:-$build_root/gcc}
[ -n "${FAVO_BUILD:-}" ] || build_in gcc --enable-werror CC=gcc
[ -x "$build/tests/unit/snapshot-tool" ] || make -C "$build/tests/unit" snapshot-tool >"$log_dir/snapshot-tool.log" 2>&1

"$top/tests/lab/vmlab" --prepare </dev/null >"$log_dir/vmlab-prepare.log" 2>&1 || {
	echo "1..0 # SKIP no lab node: see $log_dir/vmlab-prepare.log"
	case ,${FAVO_MUST_RUN:-}, in *,kvm,*) exit 1 ;; esac
	exit 0
}

stage=$(mktemp -d "${TMPDIR:-/tmp}/favo-snapshot.XXXXXX")
trap 'rm -rf "$stage"' EXIT
stage_guest "$stage" "${FAVO_LAB_DIR:-$top/.lab}/guest-kernel" "$build"
cp "$top/tests/lib/guest.sh" "$top/tests/system/snapshot-node.sh" "$stage/"
"$top/tests/lab/vmlab" --dir "$stage" --time 380 -- bash ./snapshot-node.sh
