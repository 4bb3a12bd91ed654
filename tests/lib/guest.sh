# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later
# A small guest of favo-init without Slurm: for tests and benches that run in one
# lab node (tests/lab/vmlab) and are the host themselves.

# stage_guest DIR KERNEL-DIR BUILD: fill DIR with programs and base.cpio, the
# initramfs with modules and agent.
stage_guest() {
	local dir=$1 kernel=$2 build=$3 modules m
	modules=$(echo "$kernel"/lib/modules/*)
	mkdir -p "$dir/root/favo"
	cp "$build/images/guest/favo-init" "$dir/root/init"
	strip "$dir/root/init"
	for m in virtio_pci vmw_vsock_virtio_transport virtio_blk crc32c_generic erofs \
		overlay virtio_net af_packet virtio_console virtio-rng; do
		grep "/$m\.ko:" "$modules/modules.dep" | tr -d : | tr ' ' '\n' | tac
	done | awk '!seen[$0]++' >"$dir/list"
	while read -r m; do
		cp "$modules/$m" "$dir/root/"
		echo "/${m##*/}"
	done <"$dir/list" >"$dir/root/favo/modules"
	(cd "$dir/root" && find . | cpio -o -H newc --quiet) >"$dir/base.cpio"
	rm -rf "$dir/root" "$dir/list"
	cp "$build/hypervisor/favo-vmm" "$build/tests/unit/snapshot-tool" "$dir/"
}

# The rest is for the node.

guest_secret() { printf '%064x' "$1"; }

# guest_root FILE: an EROFS image with busybox.
guest_root() {
	local tree=$1.tree tool
	mkdir -p "$tree"/{bin,etc,proc,sys,dev,tmp,run,root}
	cp "$(command -v busybox)" "$tree/bin/busybox"
	for tool in sh cat hostname date od dd ip nc sha256sum head sleep sync test; do
		ln -s busybox "$tree/bin/$tool"
	done
	mkfs.erofs -T 0 "$1" "$tree" >/dev/null 2>&1
	rm -rf "$tree"
}

# guest_config N NETWORK [EXTRA]: config.json of guest N; TIME and SEED are left
# for snapshot-tool.
guest_config() {
	printf '{"format":1,"hostname":"vm%d","job":%d,"index":0,"secret":"%s","time_ns":%s,' \
		"$1" "$1" "$(guest_secret "$1")" "${TIME_NS:-0}"
	printf '"network":"%s","prefix_len":24,"mtu":1450,"mac":"02:fa:00:00:00:%02x",' "$2" "$1"
	printf '"address":"10.99.%d.2","members":[],"user":{"name":"root","uid":0,"gid":0,' "$1"
	printf '"home":"/root","shell":"/bin/sh","groups":[]},%s' "${3:-}"
	printf '"root":{"device":"/dev/vda","fstype":"erofs"}}'
}

guest_identity() { TIME_NS=TIME guest_config "$1" "$2" '"seed":"SEED",'; }

# config_initrd FILE < config.json
config_initrd() {
	local tree=$1.tree
	mkdir -p "$tree/favo"
	cat >"$tree/favo/config.json"
	(cd "$tree" && find . | busybox cpio -o -H newc 2>/dev/null) >"$1"
	rm -rf "$tree"
}

warm_initrd() { # FILE
	printf '{"format":1,"secret":"%s","time_ns":0,"warm":true,"root":{"device":"/dev/vda","fstype":"erofs"}}' \
		"$(guest_secret 0)" | config_initrd "$1"
}
