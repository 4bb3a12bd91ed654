# SPDX-License-Identifier: GPL-2.0-or-later
# For benches of hypervisors: one lab node in which favo-vmm, QEMU microvm and
# kvmtool start the same guest. Sourced by tests/bench/vm-*; bash.
# hypervisors_stage makes $stage, to which the bench adds node.sh; what node.sh
# writes to /out/bench is in $out afterwards.

lab_dir=${FAVO_LAB_DIR:-$top/.lab}
build=${FAVO_BUILD:-$top/build}
out=$lab_dir/vmlab/out/bench
secret=$(printf '1%.0s' $(seq 64))

# guest_config ROOT-MEMBERS
guest_config() {
	printf '{"format":1,"hostname":"vm0","job":1,"index":0,"secret":"%s","time_ns":0,' "$secret"
	printf '"prefix_len":16,"mtu":1450,"mac":"02:fa:00:00:00:01","address":"10.128.0.1",'
	printf '"members":[{"name":"vm0","address":"10.128.0.1","mac":"02:fa:00:00:00:01","node":"n1"}],'
	printf '"user":{"name":"alice","uid":1000,"gid":1000,"home":"/home/alice","shell":"/bin/sh",'
	printf '"groups":[{"name":"alice","gid":1000}]},"root":{%s},"network":"none"}' "$1"
}

# initramfs OUT ROOT-MEMBERS: favo-init and its configuration, as favo-noded
# gives them to a guest.
initramfs() {
	local dir=$stage/initramfs
	mkdir -p "$dir/favo"
	cp "$build/images/guest/favo-init" "$dir/init"
	strip "$dir/init"
	guest_config "$2" >"$dir/favo/config.json"
	: >"$dir/favo/modules"
	(cd "$dir" && find . -mindepth 1 | sort | cpio -o -H newc -R 0:0 --quiet) >"$1"
	rm -rf "$dir"
}

# A root like that of a small image: a shell, and 64 MB of files to read.
make_root() {
	local dir=$stage/root d
	for d in bin etc proc sys dev tmp run root home var data; do mkdir -p "$dir/$d"; done
	cp "$(command -v busybox)" "$dir/bin/busybox"
	ln -s busybox "$dir/bin/sh"
	printf 'root:x:0:0:root:/root:/bin/sh\n' >"$dir/etc/passwd"
	printf 'root:x:0:\n' >"$dir/etc/group"
	openssl enc -aes-128-ctr -K 00 -iv 00 </dev/zero 2>/dev/null | head -c 64M >"$dir/data/file" || :
	mkfs.erofs --quiet -T 0 -E force-inode-compact "$stage/root.erofs" "$dir" >/dev/null 2>&1 ||
		mkfs.erofs -T 0 "$stage/root.erofs" "$dir" >/dev/null
	rm -rf "$dir"
}

stage_qemu() {
	local lib
	mkdir -p "$stage/qemu/lib" "$stage/qemu/share"
	cp /usr/bin/qemu-system-x86_64 "$stage/qemu/"
	for lib in $(ldd /usr/bin/qemu-system-x86_64 | awk '/=> \//{print $3}' | grep -Ev '/(libc|libm)\.so'); do
		cp "$lib" "$stage/qemu/lib/"
	done
	for lib in qboot.rom bios-microvm.bin pvh.bin linuxboot_dma.bin; do
		find /usr/share/qemu /usr/share/seabios -name "$lib" 2>/dev/null | head -n 1 |
			xargs -I{} cp -L {} "$stage/qemu/share/"
	done
}

# pages_initramfs OUT: the first process of memory tests instead of favo-init.
pages_initramfs() {
	mkdir "$stage/pages"
	gcc -std=gnu11 -D_GNU_SOURCE -O2 -static -o "$stage/pages/init" "$top/tests/bench/guest-pages.c"
	(cd "$stage/pages" && echo init | cpio -o -H newc -R 0:0 --quiet) >"$1"
	rm -rf "$stage/pages"
}

# guest_stage: $stage with all but the peers.
guest_stage() {
	"$top/tests/lab/vmlab" --prepare --lean-kernel </dev/null
	stage=$(mktemp -d "${TMPDIR:-/tmp}/favo-bench.XXXXXX")
	trap 'rm -rf "$stage"' EXIT
	cp "$build/hypervisor/favo-vmm" "$stage/"
	gcc -std=gnu11 -D_GNU_SOURCE -O2 -static -o "$stage/vmm-ready" "$top/tests/bench/vmm-ready.c"
	cp "$lab_dir/lean-kernel/vmlinux" "$lab_dir/lean-kernel/bzImage" "$stage/"
	make_root
	initramfs "$stage/initrd.cpio" '"device":"/dev/vda","fstype":"erofs"'
	cat >"$stage/hypervisors-node.sh" <<'END'
RUNS=@RUNS@
words=${words:-quiet panic=-1}
setup() {
	mount -t debugfs debugfs /sys/kernel/debug 2>/dev/null
	rm -rf /out/bench
	mkdir -p /out/bench
	[ -c /dev/vhost-vsock ] || { echo "no /dev/vhost-vsock in the node"; exit 1; }
}
favo=(/fresh/favo-vmm --kernel /fresh/vmlinux --mem 256M --vsock cid=@CID@ --rng --jail)
favo_disk=("${favo[@]}" --cmdline "$words" --initrd /fresh/initrd.cpio
	--disk path=/fresh/root.erofs,ro)
# No firmware tables, no legacy devices, no option ROMs; devices by command line
# of the kernel or by ACPI, whichever is faster.
qemu() { # ACPI
	command=(/usr/bin/env LD_LIBRARY_PATH=/fresh/qemu/lib /fresh/qemu/qemu-system-x86_64
		-L /fresh/qemu/share -nodefaults -no-user-config -no-reboot -display none
		-M "microvm,accel=kvm,acpi=$1,x-option-roms=off,pit=off,pic=off,rtc=off,isa-serial=off"
		-cpu host -m 256M -smp 1 -kernel /fresh/vmlinux -initrd /fresh/initrd.cpio
		-append "$words"
		-drive if=none,id=root,file=/fresh/root.erofs,format=raw,readonly=on,file.locking=off
		-device virtio-blk-device,drive=root -device virtio-rng-device
		-device vhost-vsock-device,guest-cid=@CID@)
}
kvmtool=(/fresh/lkvm run --kernel /fresh/bzImage --initrd /fresh/initrd.cpio
	--params "$words" --mem 256 --cpus 1 --disk /fresh/root.erofs,ro
	--network mode=none --rng --vsock @CID@ --console virtio --name "bench@CID@")
# each FUNCTION: calls it for every hypervisor that is there
each() {
	"$1" favo "${favo_disk[@]}" || echo "favo did not come up"
	qemu off
	"$1" qemu-microvm "${command[@]}" || echo "QEMU without ACPI did not come up"
	qemu on
	"$1" qemu-microvm-acpi "${command[@]}" || echo "QEMU with ACPI did not come up"
	[ ! -x ./lkvm ] || HOME=/scratch "$1" kvmtool "${kvmtool[@]}" || echo "kvmtool did not come up"
}
END
	sed -i "s/@RUNS@/${runs:-1}/" "$stage/hypervisors-node.sh"
}

hypervisors_stage() {
	guest_stage
	stage_qemu
	[ -z "${LKVM:-}" ] || cp "$LKVM" "$stage/lkvm"
}

# hypervisors_run SECONDS [SCRIPT]
hypervisors_run() {
	mkdir -p "$out"
	"$top/tests/lab/vmlab" --dir "$stage" --time "$1" -- bash "./${2:-node.sh}"
}
