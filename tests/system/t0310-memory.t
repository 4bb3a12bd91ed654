#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Memory of guests with the drivers of a Debian kernel, on a real /dev/kvm in a
# lab node: an image as persistent memory that two VMs share, free pages that go
# back to the host, a page of the image that cannot be read.
# limit: 1200
set -eu
. "$(dirname "$0")/../lib/build.sh"
build=${FAVO_BUILD:-$build_root/gcc}
[ -n "${FAVO_BUILD:-}" ] || build_in gcc --enable-werror CC=gcc
kernel=${FAVO_LAB_DIR:-$top/.lab}/guest-kernel

"$top/tests/lab/vmlab" --prepare </dev/null >"$log_dir/vmlab-prepare.log" 2>&1 || {
	echo "1..0 # SKIP no lab node: see $log_dir/vmlab-prepare.log"
	case ,${FAVO_MUST_RUN:-}, in *,kvm,*) exit 1 ;; esac
	exit 0
}

stage=$(mktemp -d "${TMPDIR:-/tmp}/favo-memory.XXXXXX")
trap 'rm -rf "$stage"' EXIT
for program in memory-init memory-host; do
	${CC:-gcc} -std=gnu11 -D_GNU_SOURCE -O2 -Wall -Wextra -Werror -static \
		-o "$stage/$program" "$top/tests/system/$program.c"
done
cp "$build/hypervisor/favo-vmm" "$top/tests/system/memory-node.sh" "$stage/"

# An image with a file of 64 MiB of bytes that cannot be packed or shared.
mkdir -p "$stage/root/data"
head -c 64M /dev/urandom >"$stage/root/data/file"
mkfs.erofs -T 0 "$stage/root.erofs" "$stage/root" >"$log_dir/memory-image.log" 2>&1
rm -rf "$stage/root"

# An initramfs of pid 1 and the modules, in the order in which they need each other.
modules=$(echo "$kernel"/lib/modules/*)
mkdir -p "$stage/root"
mv "$stage/memory-init" "$stage/root/init"
for m in virtio_pci virtio_blk crc32c_generic erofs nd_pmem virtio_pmem \
	vmw_vsock_virtio_transport virtio_balloon; do
	grep "/$m\.ko:" "$modules/modules.dep" | tr -d : | tr ' ' '\n' | tac
done | awk '!seen[$0]++' >"$stage/list"
while read -r m; do
	cp "$modules/$m" "$stage/root/"
	echo "/${m##*/}"
done <"$stage/list" >"$stage/root/modules"
(cd "$stage/root" && find . | cpio -o -H newc --quiet) >"$stage/initrd.cpio"
rm -rf "$stage/root"

"$top/tests/lab/vmlab" --dir "$stage" --time 600 -- bash ./memory-node.sh
