# SPDX-License-Identifier: GPL-2.0-or-later
# One lab node as a QEMU machine. Without hardware virtualization QEMU emulates
# an AMD CPU with SVM and nested paging, so that the node's kvm-amd works.

# has_real_kvm: whether a guest gets through its first instructions by KVM. The
# device file alone proves nothing: some containers offer one that interprets
# guests. The payload asks QEMU's exit device to end with code 33.
has_real_kvm() {
	local dir=$LAB/run/kvm-probe code=0
	grep -qE '\b(svm|vmx)\b' /proc/cpuinfo && [ -w /dev/kvm ] || return 1
	mkdir -p "$dir"
	# mov al,16; out 0xf4,al; hlt at the reset vector of a 64 KiB ROM.
	{ head -c 65520 /dev/zero; printf '\xb0\x10\xe6\xf4\xf4'; head -c 11 /dev/zero; } >"$dir/rom"
	timeout 5 qemu-system-x86_64 -nodefaults -no-user-config -display none -M q35 -accel kvm \
		-cpu host -m 16 -bios "$dir/rom" \
		-device isa-debug-exit,iobase=0xf4,iosize=0x04 >/dev/null 2>&1 || code=$?
	rm -rf "$dir"
	[ $code = 33 ]
}

# machine_initrd OUT DIR: initramfs of one node; DIR holds its "node" folder.
machine_initrd() {
	mkdir -p "$2/node/files/lab"
	cp "$ASSETS/node-init" "$2/init"
	cp "$ASSETS/node-exec" "$2/node/files/lab/node-exec"
	(cd "$2" && find . -mindepth 1 | cpio -o -H newc --quiet) | cat "$ASSETS/base.cpio" - >"$1"
}

# machine_args NAME INITRD CPUS MEM-MB: fills the array "machine" with the part
# of the command line that all nodes share. The console goes to $LAB/logs.
machine_args() {
	local name=$1 initrd=$2 cpus=$3 mem=$4 tsc cpu
	tsc=$("$ASSETS/node-exec" tsc)
	if [ "${LAB_ACCEL:=$(has_real_kvm && echo kvm || echo tcg)}" = kvm ]; then
		cpu=(-accel kvm -cpu host)
		tsc=
	else
		# Copies by "rep movsb" are slow in TCG; it does not intercept XSETBV, so
		# that the system of a nested guest finds its XSAVE sizes wrong.
		cpu=(-accel "tcg,thread=multi" -cpu "max,+svm,+npt,-erms,-fsrm,-xsave,-avx,-avx2,-fma,-f16c,-vaes,-pku,-mpx")
		tsc="tsc_early_khz=$tsc"
	fi
	machine=(qemu-system-x86_64 -nodefaults -no-user-config -no-reboot -display none
		-name "favo-lab-$name" -M "q35,hpet=off" -bios qboot.rom "${cpu[@]}"
		-smp "$cpus" -m "$mem" -kernel "$ASSETS/vmlinux" -initrd "$initrd"
		-append "console=ttyS0 ${LAB_KERNEL_LOG:-quiet} panic=-1 mitigations=off net.ifnames=0 $tsc"
		-chardev "file,id=console,path=$LAB/logs/$name.console,append=on" -serial chardev:console
		-device "virtio-rng-pci,disable-legacy=on"
		-device "virtio-serial-pci,disable-legacy=on"
		-qmp "unix:$LAB/run/$name.qmp,server=on,wait=off")
	machine_disk root "$ASSETS/root.erofs" ro
}

# bare_args NAME MEM-MB: fills the array "machine" for a machine that boots over the
# network from nothing: its card's ROM is iPXE, or with UEFI the firmware does all.
bare_args() {
	local name=$1 mac cpu rom=/usr/lib/ipxe/qemu/pxe-e1000e.rom firmware=()
	mac=52:54:00:77:01:$(printf %02x "${name#b}")
	if [ "${LAB_ACCEL:=$(has_real_kvm && echo kvm || echo tcg)}" = kvm ]; then
		cpu=(-accel kvm -cpu host)
	else
		# Debian's kernel uses five levels of page tables when it may, and QEMU's
		# TCG gets them wrong: reads of kernel memory fail, /proc/mounts has "xxxx".
		cpu=(-accel "tcg,thread=multi" -cpu "max,-svm,-la57,-erms,-fsrm,-xsave,-avx,-avx2,-fma,-f16c,-vaes,-pku,-mpx")
	fi
	if [ -e "$LAB/run/$name.uefi" ]; then
		cp /usr/share/OVMF/OVMF_VARS.fd "$LAB/run/$name.vars"
		firmware=(-drive "if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE.fd"
			-drive "if=pflash,format=raw,file=$LAB/run/$name.vars")
		rom=
	fi
	machine=(qemu-system-x86_64 -nodefaults -no-user-config -display none
		-name "favo-lab-$name" -M q35 "${cpu[@]}" -smp 1 -m "$2" "${firmware[@]}"
		-chardev "file,id=console,path=$LAB/logs/$name.console,append=on" -serial chardev:console
		-netdev "tap,id=lab,ifname=tap-$name,script=no,downscript=no,vhost=off"
		-device "e1000e,netdev=lab,mac=$mac,romfile=$rom,bootindex=1"
		-device "virtio-rng-pci,disable-legacy=on"
		-qmp "unix:$LAB/run/$name.qmp,server=on,wait=off")
	[ ! -s "$LAB/scratch/$name.ext4" ] || machine_disk cache "$LAB/scratch/$name.ext4" rw
}

# machine_disk SERIAL FILE ro|rw
machine_disk() {
	local opts="file=$2,format=raw,if=none,id=$1,file.locking=off"
	[ "$3" = rw ] || opts+=",readonly=on"
	machine+=(-drive "$opts" -device "virtio-blk-pci,drive=$1,serial=$1,disable-legacy=on")
}

# machine_share TAG DIR: a host directory, with the owners of its files
machine_share() {
	machine+=(-fsdev "local,id=$1,path=$2,security_model=passthrough"
		-device "virtio-9p-pci,fsdev=$1,mount_tag=$1,disable-legacy=on")
}

# machine_port NAME CHARDEV-OPTIONS
machine_port() {
	machine+=(-chardev "$2,id=port-$1" -device "virtserialport,chardev=port-$1,name=$1")
}

# scratch_disk FILE SIZE: a sparse ext4 disk that is made once.
scratch_disk() {
	[ -s "$1" ] || { truncate -s "$2" "$1" && mkfs.ext4 -q -F "$1"; }
}
