# SPDX-License-Identifier: GPL-2.0-or-later
# The expensive parts of the lab, each built once and again only when its inputs
# change: root and kernel of the compute nodes, kernel for test guests.
#   $LAB/assets/root.erofs        node root
#   $LAB/assets/vmlinux           node kernel (PVH ELF), its modules are in the root
#   $LAB/assets/base.cpio         node initramfs without the node's own part
#   $LAB/guest-kernel/            vmlinux, bzImage, release, lib/modules/RELEASE of
#                                 Debian's cloud kernel, for guests of our own
#   $LAB/lean-kernel/             the same of the lean kernel (images/kernel), when
#                                 something asked for it

ASSETS=$LAB/assets
# Loaded in the initramfs; the rest comes from the root. libcrc32c, which erofs
# needs, finds its algorithm by name: no dependency tells that.
NODE_BOOT_MODULES="virtio_pci virtio_blk virtio_console crc32c_generic erofs overlay"

build_tools() {
	local src=$TOP/tests/lab hash tool
	hash=$(inputs_hash "$src/node-init.c" "$src/node-exec.c")
	is_built tools "$hash" && return
	for tool in node-init node-exec; do
		gcc -std=gnu11 -O2 -Wall -Wextra -static -o "$ASSETS/$tool" "$src/$tool.c" || return
	done
	mark_built tools "$hash"
}

# unpack_kernel PACKAGE DIR: downloads the kernel that the meta package stands
# for and unpacks it into DIR.
unpack_kernel() {
	local name deb
	name=$(apt-cache depends "$1" | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -n1)
	[ -n "$name" ] || {
		apt-get update
		name=$(apt-cache depends "$1" |
			sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -n1)
	}
	[ -n "$name" ] || { echo "apt knows no kernel package for $1"; return 1; }
	rm -rf "$2" "$2.deb"
	mkdir -p "$2.deb" || return
	(cd "$2.deb" && apt-get -o APT::Sandbox::User=root download "$name") || return
	deb=$(ls "$2.deb"/*.deb)
	dpkg-deb -x "$deb" "$2" || return
	rm -rf "$2.deb" "$2/usr"
}

# extract_vmlinux BZIMAGE OUT: the payload's place is in the boot header
# (setup_sects at 0x1f1, payload_offset at 0x248, payload_length at 0x24c).
extract_vmlinux() {
	local sects offset length
	sects=$(od -An -tu1 -j$((0x1f1)) -N1 "$1")
	offset=$(od -An -tu4 -j$((0x248)) -N4 "$1")
	length=$(od -An -tu4 -j$((0x24c)) -N4 "$1")
	tail -c +$(((sects + 1) * 512 + offset + 1)) "$1" | head -c "$length" >"$2.packed"
	case $(od -An -tx1 -N4 "$2.packed" | tr -d ' ') in
	fd377a58) head -c -4 "$2.packed" | xz -dc >"$2" ;;
	28b52ffd) head -c -4 "$2.packed" | zstd -dcq >"$2" ;;
	1f8b*) head -c -4 "$2.packed" | gzip -dc >"$2" ;;
	02214c18) head -c -4 "$2.packed" | lz4 -dcq >"$2" ;;
	*) echo "$1: payload packed in an unknown way"; return 1 ;;
	esac
	rm -f "$2.packed"
	[ "$(head -c4 "$2" | tail -c3)" = ELF ]
}

build_node_root() {
	local work=$ASSETS/node.work packages release dir
	packages=$(grep -v '^#' "$TOP/tests/lab/packages.node" | paste -sd,)
	rm -rf "$work"
	mkdir -p "$work"
	mmdebstrap --mode=root --variant=minbase --aptopt='Acquire::Languages "none"' \
		--aptopt='APT::Install-Recommends "false"' \
		--dpkgopt='path-exclude=/usr/share/doc/*' \
		--dpkgopt='path-exclude=/usr/share/man/*' \
		--dpkgopt='path-exclude=/usr/share/locale/*' \
		--include="$packages" bookworm "$work/root" || return
	unpack_kernel linux-image-amd64 "$work/kernel" || return
	release=$(ls "$work/kernel/lib/modules")
	for dir in gpu media iio staging infiniband/hw scsi/qla2xxx net/wireless \
		net/ethernet/mellanox hwmon usb input platform; do
		rm -rf "$work/kernel/lib/modules/$release/kernel/drivers/$dir"
	done
	rm -rf "$work/kernel/lib/modules/$release/kernel/sound"
	mkdir -p "$work/root/lib/modules"
	mv "$work/kernel/lib/modules/$release" "$work/root/lib/modules/"
	chroot "$work/root" depmod "$release" || return
	extract_vmlinux "$work/kernel/boot/vmlinuz-$release" "$ASSETS/vmlinux" || return
	node_root_tune "$work/root"
	boot_cpio "$work/root/lib/modules/$release" "$work/boot" || return
	rm -f "$ASSETS/root.erofs"
	mkfs.erofs -T 0 "$ASSETS/root.erofs" "$work/root" || return
	echo "$release" >"$ASSETS/release"
	rm -rf "$work"
}

# What Debian's packages leave for a node of the lab to do.
node_root_tune() {
	local root=$1 dir
	for dir in lab opt/favo etc/favo var/lib/favo var/log/favo run/munge work guest fresh out; do
		mkdir -p "$root/$dir"
	done
	printf 'alice:x:1000:1000:Alice:/home/alice:/bin/bash\n' >>"$root/etc/passwd"
	printf 'bob:x:1001:1001:Bob:/home/bob:/bin/bash\n' >>"$root/etc/passwd"
	printf 'alice:x:1000:\nbob:x:1001:\n' >>"$root/etc/group"
	rm -f "$root/etc/hostname" "$root/etc/resolv.conf"
	: >"$root/etc/resolv.conf"
}

# boot_cpio MODULES-DIR WORK-DIR: the modules that the root needs, in load order.
boot_cpio() {
	local dir=$1 work=$2 name path
	mkdir -p "$work/node" "$work/modules"
	for name in $NODE_BOOT_MODULES; do
		path=$(sed -n "s|^\([^:]*/$name\.ko\):.*|\1|p" "$dir/modules.dep")
		if [ -z "$path" ]; then
			grep -q "/$name\.ko$" "$dir/modules.builtin" && continue
			echo "no module $name in $dir"
			return 1
		fi
		# modules.dep lists what a module needs, the deepest need last.
		sed -n "s|^$path: *||p" "$dir/modules.dep" | tr ' ' '\n' | tac
		echo "$path"
	done | awk 'NF && !seen[$0]++' >"$work/order" || return
	while read -r path; do
		cp "$dir/$path" "$work/modules/" || return
		echo "/modules/${path##*/}" >>"$work/node/modules"
	done <"$work/order"
	rm "$work/order"
	(cd "$work" && find . -mindepth 1 | cpio -o -H newc -R 0:0 --quiet) >"$ASSETS/base.cpio"
}

build_guest_kernel() {
	local out=$LAB/guest-kernel release
	unpack_kernel linux-image-cloud-amd64 "$out.new" || return
	release=$(ls "$out.new/lib/modules")
	mv "$out.new/boot/vmlinuz-$release" "$out.new/bzImage"
	rm -rf "$out.new/boot"
	extract_vmlinux "$out.new/bzImage" "$out.new/vmlinux" || return
	depmod -b "$out.new" "$release" || return
	echo "$release" >"$out.new/release"
	mkfs.erofs -T 0 "$ASSETS/guest.erofs" "$out.new" || return
	rm -rf "$out"
	mv "$out.new" "$out"
}

# Compiled from Debian's source, by a compiler cache where there is one.
build_lean_kernel() {
	local out=$LAB/lean-kernel cc=gcc
	! command -v ccache >/dev/null || cc="ccache gcc"
	rm -rf "$out"
	CC=$cc "$TOP/images/kernel/favo-build-kernel" --work "$LAB/build/kernel" "$out" || return
	rm -rf "$LAB/build/kernel"
}

# ensure_lean_kernel: $LAB/lean-kernel (images/kernel). Ten minutes on two cores,
# so it is for benches, which ask for it, and the other guests boot Debian's.
ensure_lean_kernel() {
	local hash
	mkdir -p "$ASSETS"
	exec 7>"$ASSETS/lock"
	flock -n 7 || { say "  waiting for another build in $ASSETS …"; flock 7; }
	hash=$(inputs_hash "$TOP"/images/kernel/{favo.config,favo-build-kernel})
	if ! is_built lean-kernel "$hash"; then
		step "lean guest kernel (ten minutes, once)" "$LAB/logs/build-lean-kernel.log" \
			build_lean_kernel || return
		mark_built lean-kernel "$hash"
	fi
	exec 7>&-
}

# ensure_assets: everything above, each part only when it has to be.
ensure_assets() {
	local root_hash guest_hash
	mkdir -p "$ASSETS"
	exec 7>"$ASSETS/lock"
	flock -n 7 || { say "  waiting for another build in $ASSETS …"; flock 7; }
	step "lab tools" "$LAB/logs/build-tools.log" build_tools || return
	root_hash=$(inputs_hash "$TOP/tests/lab/packages.node" \
		"$(declare -f build_node_root node_root_tune boot_cpio extract_vmlinux unpack_kernel)" \
		"$NODE_BOOT_MODULES")
	if ! is_built root "$root_hash"; then
		step "node root from Debian packages" "$LAB/logs/build-root.log" build_node_root || return
		mark_built root "$root_hash"
	fi
	guest_hash=$(inputs_hash "$(declare -f build_guest_kernel extract_vmlinux unpack_kernel)")
	if ! is_built guest "$guest_hash"; then
		step "guest kernel" "$LAB/logs/build-guest-kernel.log" build_guest_kernel || return
		mark_built guest "$guest_hash"
	fi
	exec 7>&-
}
