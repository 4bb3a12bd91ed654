#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# The hypervisor's core with a Debian kernel, on a real /dev/kvm in a lab node:
# both kernel formats, vCPUs, memory above 4 GiB, every way to end, control
# socket, hostile accesses, what a jailed process still has.
# limit: 420
set -eu
. "$(dirname "$0")/../lib/build.sh"
build=${FAVO_BUILD:-$build_root/gcc}
[ -n "${FAVO_BUILD:-}" ] || build_in gcc --enable-werror CC=gcc

"$top/tests/lab/vmlab" --prepare </dev/null >"$log_dir/vmlab-prepare.log" 2>&1 || {
	echo "1..0 # SKIP no lab node: see $log_dir/vmlab-prepare.log"
	case ,${FAVO_MUST_RUN:-}, in *,kvm,*) exit 1 ;; esac
	exit 0
}

stage=$(mktemp -d "${TMPDIR:-/tmp}/favo-vmm.XXXXXX")
trap 'rm -rf "$stage"' EXIT
mkdir "$stage/root"
${CC:-gcc} -std=gnu11 -D_GNU_SOURCE -O2 -Wall -Wextra -Werror -static \
	-o "$stage/root/init" "$top/tests/system/vmm-init.c"
strip "$stage/root/init"
(cd "$stage/root" && find . | cpio -o -H newc --quiet) >"$stage/initrd.cpio"
# A second archive, of a size that is no multiple of four.
mkdir "$stage/more"
echo 2 >"$stage/more/second"
(cd "$stage/more" && echo second | cpio -o -H newc --quiet) >"$stage/second.cpio"
printf '\0\0\0' >>"$stage/second.cpio"
rm -rf "$stage/root" "$stage/more"
cp "$build/hypervisor/favo-vmm" "$top/tests/system/vmm-node.sh" "$stage/"

"$top/tests/lab/vmlab" --dir "$stage" --time 300 -- bash ./vmm-node.sh
