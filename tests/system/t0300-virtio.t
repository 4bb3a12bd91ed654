#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Every virtio device with the drivers of a Debian kernel, on a real /dev/kvm in
# a lab node: disks with both I/O engines and overlay, entropy, network with and
# without vhost or as vmxnet3, vsock, console.
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

stage=$(mktemp -d "${TMPDIR:-/tmp}/favo-virtio.XXXXXX")
trap 'rm -rf "$stage"' EXIT
${CC:-gcc} -std=gnu11 -D_GNU_SOURCE -O2 -Wall -Wextra -Werror -static \
	-o "$stage/virtio-init" "$top/tests/system/virtio-init.c"
cp "$build/hypervisor/favo-vmm" "$top/tests/system/virtio-node.sh" "$stage/"

# The vhost-user process of QEMU, when this machine has it, with its libraries.
if [ -x /usr/lib/qemu/virtiofsd ]; then
	mkdir "$stage/lib"
	cp /usr/lib/qemu/virtiofsd "$stage/"
	ldd /usr/lib/qemu/virtiofsd | awk '/=> \//{print $3}' |
		grep -Ev '/(libc|libm)\.so' | xargs -I{} cp {} "$stage/lib/"
fi

# An initramfs of pid 1 and the modules, in the order in which they need each other.
modules=$(echo "$kernel"/lib/modules/*)
mkdir -p "$stage/root"
cp "$stage/virtio-init" "$stage/root/init"
for m in virtio_pci virtio_console virtio_blk virtio-rng virtio_net vmxnet3 \
	vmw_vsock_virtio_transport virtiofs; do
	grep "/$m\.ko:" "$modules/modules.dep" | tr -d : | tr ' ' '\n' | tac
done | awk '!seen[$0]++' >"$stage/list"
while read -r m; do
	cp "$modules/$m" "$stage/root/"
	echo "/${m##*/}"
done <"$stage/list" >"$stage/root/modules"
(cd "$stage/root" && find . | cpio -o -H newc --quiet) >"$stage/initrd.cpio"
rm -rf "$stage/root"

"$top/tests/lab/vmlab" --dir "$stage" --time 220 -- bash ./virtio-node.sh
