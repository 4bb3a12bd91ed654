#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# limit: 300
# favo image import of squashfs and disk images: all formats give one tree,
# separate /boot, and what hostile images are answered. Needs no lab and
# mounts nothing.
set -eu
. "$(dirname "$0")/../lib/build.sh"
build=${FAVO_BUILD:-$build_root/gcc}
[ -n "${FAVO_BUILD:-}" ] || build_in gcc --enable-werror CC=gcc
favo=$build/provision/cli/favo
dir=$(mktemp -d "${TMPDIR:-/tmp}/favo-disk-XXXXXX")
chmod 755 "$dir"
trap 'rm -rf "$dir"' EXIT
PATH=$PATH:/usr/sbin:/sbin
FAVO_CONF_STORE_DIR=$dir/store
FAVO_LIBEXECDIR=$build/images
export FAVO_CONF_STORE_DIR FAVO_LIBEXECDIR PATH
plan 22

# import WORDS...: output in $dir/out and $dir/err
import() {
	timeout 60 "$favo" image import "$@" >"$dir/out" 2>"$dir/err" </dev/null
}

must() {
	import "$@" || fail "favo image import $*: $(cat "$dir/err")"
}

# root_of NAME: digest of the root's index, the same for equal trees
# The name of the image is part of its os-release: all have one name here.
root_of() {
	"$favo" image show --json "$1" | jq -r .root.index
}

# refused SENTENCE WORDS...
refused() {
	sentence=$1
	shift
	if import "$@"; then
		fail "import $*: done, and should be refused"
	fi
	grep -q -- "$sentence" "$dir/err" || fail "no '$sentence' in: $(cat "$dir/err")"
	[ -z "$(ls "$dir/store/tmp")" ] || fail "left in tmp: $(ls "$dir/store/tmp")"
}

said() {
	grep -q -- "$1" "$dir/err" || fail "no '$1' in: $(cat "$dir/err")"
}

# make_root FOLDER: a system that boots nowhere, but has all that is looked for.
make_root() {
	rel=6.1.0-test
	mkdir -p "$1/etc/munge" "$1/usr/bin" "$1/boot" "$1/usr/lib/modules/$rel"
	printf 'PRETTY_NAME="Test system"\nID=test\n' >"$1/usr/lib/os-release"
	ln -s ../usr/lib/os-release "$1/etc/os-release"
	echo key >"$1/etc/munge/munge.key"
	head -c 3000000 /dev/urandom >"$1/usr/bin/program"
	ln "$1/usr/bin/program" "$1/usr/bin/alias"
	ln -s "$(printf 'a%.0s' $(seq 200))" "$1/usr/bin/long-link"
	truncate -s 40M "$1/usr/bin/hole"
	printf end >>"$1/usr/bin/hole"
	chmod 4755 "$1/usr/bin/program"
	mkfifo "$1/usr/bin/fifo"
	[ "$(id -u)" != 0 ] || mknod "$1/usr/bin/device" c 10 232
	: >"$1/usr/lib/modules/$rel/modules.dep"
	printf 'k/%s.ko\n' virtio_pci virtio_blk erofs overlay vmw_vsock_virtio_transport \
		>"$1/usr/lib/modules/$rel/modules.builtin"
	# An ELF file with one note: XEN_ELFNOTE_PHYS32_ENTRY.
	{
		printf '\177ELF\2\1\1\0\0\0\0\0\0\0\0\0\2\0\76\0\1\0\0\0\0\0\0\1\0\0\0\0'
		printf '\100\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\100\0\70\0\1\0\0\0\0\0\0\0'
		printf '\4\0\0\0\4\0\0\0\170\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0'
		printf '\24\0\0\0\0\0\0\0\24\0\0\0\0\0\0\0\4\0\0\0\0\0\0\0'
		printf '\4\0\0\0\4\0\0\0\22\0\0\0Xen\0\0\0\0\1'
	} >"$1/boot/vmlinuz-$rel"
	find "$1" -exec env TZ=UTC touch -h -d '2024-01-02 03:04:05' {} +
}

# ext DISK OFFSET_MIB SIZE_MIB FOLDER OPTION...: a file system inside a file
ext() {
	disk=$1
	offset=$2
	size=$3
	from=$4
	shift 4
	mke2fs -q -F -t ext4 -d "$from" -E "offset=$((offset * 1048576))" "$@" \
		"$disk" "${size}M" >"$dir/mke2fs" 2>&1 || fail "mke2fs: $(cat "$dir/mke2fs")"
	# mke2fs gives the topmost folder the time of today.
	TZ=UTC debugfs -w -R 'set_inode_field / mtime 20240102030405' \
		"$disk?offset=$((offset * 1048576))" >"$dir/debugfs" 2>&1
}

make_root "$dir/root"
must --name t "$dir/root"
want=$(root_of t)

for comp in gzip xz zstd lzo; do
	mksquashfs "$dir/root" "$dir/root.sqsh" -comp $comp -quiet -noappend -no-progress
	must --name t "$dir/root.sqsh"
	[ "$(root_of t)" = "$want" ] || fail "squashfs with $comp gives another tree"
done
said 'dropped secret /etc/munge/munge.key'
ok "squashfs with gzip, xz, zstd and lzo: the tree of the folder"
must "sqsh:$dir/root.sqsh"
"$favo" image show root >/dev/null || fail "no image root"
ok "sqsh:FILE names the image after the file"
chmod 600 "$dir/root.sqsh"
must --name t "$dir/root.sqsh"
ok "a file that only its owner reads"
head -c 1500000 "$dir/root.sqsh" >"$dir/cut.sqsh"
refused cut.sqsh --name cut "$dir/cut.sqsh"
ok "a squashfs that was cut is refused"

truncate -s 80M "$dir/bare.img"
ext "$dir/bare.img" 0 80 "$dir/root"
must --name t "$dir/bare.img"
[ "$(root_of t)" = "$want" ] || fail "ext4 gives another tree"
said 'root: partition 0, the only one'
ok "a bare ext4: the tree of the folder, holes, links and devices too"

# GPT: an ESP that is none, /boot of its own, the root, an old system beside it.
cp -a "$dir/root" "$dir/split"
mv "$dir/split/boot" "$dir/boot"
mkdir "$dir/split/boot"
{
	printf 'UUID=11111111-2222-3333-4444-555555555555 / ext4 defaults 0 1\n'
	printf '/dev/vda2 /boot ext4 defaults 0 2\nLABEL=swap none swap sw 0 0\n'
	printf 'tmpfs /scratch tmpfs defaults 0 0\n'
} >"$dir/split/etc/fstab"
truncate -s 240M "$dir/gpt.img"
printf 'label: gpt\nstart=2048,size=2048,type=U\nstart=8192,size=40960\nsize=163840\nsize=163840\n' |
	sfdisk -q "$dir/gpt.img"
ext "$dir/gpt.img" 4 20 "$dir/boot"
ext "$dir/gpt.img" 24 80 "$dir/root"
ext "$dir/gpt.img" 104 80 "$dir/split" -U 11111111-2222-3333-4444-555555555555
must --name t "$dir/gpt.img"
gpt=$(root_of t)
said 'root: partition 4, its fstab names it as /'
said '/boot: partition 2, by the fstab'
said 'fstab: 3 lines commented out'
said 'kernel of the image: /boot/vmlinuz-6.1.0-test'
ok "GPT with two systems and a /boot: the root that its fstab names, its kernel"
must --partition 3 --name t "$dir/gpt.img"
[ "$(root_of t)" = "$want" ] || fail "--partition took another tree"
ok "--partition chooses another"
for format in qcow2 vmdk vdi; do
	qemu-img convert -O $format "$dir/gpt.img" "$dir/gpt.$format"
	must --name t "$dir/gpt.$format"
	[ "$(root_of t)" = "$gpt" ] || fail "$format gives another tree"
done
qemu-img convert -c -O qcow2 "$dir/gpt.img" "$dir/packed.img"
must --name t "$dir/packed.img"
[ "$(root_of t)" = "$gpt" ] || fail "packed qcow2 gives another tree"
qemu-img convert -O vmdk -o subformat=streamOptimized "$dir/gpt.img" "$dir/stream.vmdk"
must --name t "vmdk:$dir/stream.vmdk"
[ "$(root_of t)" = "$gpt" ] || fail "streamOptimized VMDK gives another tree"
ok "qcow2, VMDK and VDI, packed and not: the same tree"

truncate -s 200M "$dir/mbr.img"
printf 'label: dos\nstart=2048,size=2048,type=83\nstart=8192,type=5\nstart=10240,size=163840,type=83\n' |
	sfdisk -q "$dir/mbr.img"
ext "$dir/mbr.img" 5 80 "$dir/root"
must --name t "$dir/mbr.img"
[ "$(root_of t)" = "$want" ] || fail "MBR gives another tree"
said 'root: partition 5'
ok "MBR with a logical partition"
cp "$dir/gpt.img" "$dir/backup.img"
printf 'X' | dd of="$dir/backup.img" bs=1 seek=520 conv=notrunc status=none
must --name t "$dir/backup.img"
[ "$(root_of t)" = "$gpt" ] || fail "the backup GPT gives another tree"
ok "a damaged GPT: its backup"
if [ "$(id -u)" = 0 ]; then
	mkdir "$dir/mine"
	chown 65534 "$dir/mine"
	setpriv --reuid 65534 --regid 65534 --clear-groups env \
		FAVO_CONF_STORE_DIR="$dir/mine" "$favo" image import --name mine \
		"$dir/gpt.qcow2" >"$dir/out" 2>"$dir/err" || fail "as a user: $(cat "$dir/err")"
	ok "a plain user imports, too"
else
	ok "a plain user imports, too # SKIP this is one"
fi

# ---- hostile images ----
echo "top secret" >"$dir/secret"
qemu-img create -q -f qcow2 -F raw -b /etc/shadow "$dir/back.qcow2" 1M
refused 'refers to another file, ./etc/shadow' --name back "$dir/back.qcow2"
qemu-img create -q -f qcow2 -o data_file="$dir/secret",data_file_raw=on "$dir/data.qcow2" 1M
refused "refers to another file\|Could not open" --name data "$dir/data.qcow2"
ok "qcow2 with a backing file or a data file is refused"
qemu-img create -q -f vmdk -b "$dir/gpt.vmdk" -F vmdk "$dir/back.vmdk"
refused 'refers to another file' --name back "$dir/back.vmdk"
{
	printf '# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\n'
	printf 'createType="monolithicFlat"\nRW 2 FLAT "/etc/shadow" 0\n'
} >"$dir/text.vmdk"
refused 'names other files' --name text "$dir/text.vmdk"
refused text.vmdk --name text "vmdk:$dir/text.vmdk"
! grep -rq root: "$dir/err" || fail "shows a file of the host: $(cat "$dir/err")"
ok "VMDK with a backing file or a descriptor of other files is refused"
printf 'conectix' >"$dir/x.vhd"
refused 'convert it' --name vhd "$dir/x.vhd"
ok "formats that are not read are named"

head -c 1000000 "$dir/gpt.qcow2" >"$dir/cut.qcow2"
refused cut.qcow2 --name cut "$dir/cut.qcow2"
head -c 100M "$dir/gpt.img" >"$dir/cut.img"
refused 'beyond the end\|cut' --name cut "$dir/cut.img"
head -c 100M "$dir/mbr.img" | head -c 40000000 >"$dir/cut2.img"
refused 'beyond the end' --name cut "$dir/cut2.img"
ok "disk images that were cut are refused"

# An entry of the MBR: boot, CHS, type, CHS, first sector, sectors.
entry() {
	printf "\\0\\0\\0\\0\\$1\\0\\0\\0$2$3"
}
mbr() {
	truncate -s 8M "$dir/$1"
	{
		cat
	} | dd of="$dir/$1" bs=1 seek=446 conv=notrunc status=none
	printf '\125\252' | dd of="$dir/$1" bs=1 seek=510 conv=notrunc status=none
}
{
	entry 203 '\0\10\0\0' '\0\20\0\0'
	entry 203 '\0\11\0\0' '\0\20\0\0'
} | mbr overlap.img
refused 'partitions 1 and 2 overlap' --name overlap "$dir/overlap.img"
entry 5 '\0\10\0\0' '\0\20\0\0' | mbr loop.img
{
	entry 0 '\0\0\0\0' '\0\0\0\0'
	entry 5 '\0\0\0\0' '\0\20\0\0'
} | dd of="$dir/loop.img" bs=1 seek=$((2048 * 512 + 446)) conv=notrunc status=none
printf '\125\252' | dd of="$dir/loop.img" bs=1 seek=$((2048 * 512 + 510)) conv=notrunc status=none
refused 'loop' --name loop "$dir/loop.img"
ok "partitions that overlap, and a chain without an end, are refused"

cp "$dir/bare.img" "$dir/damaged.img"
debugfs -w -R 'set_inode_field /usr/bin mode 0100644' "$dir/damaged.img" >"$dir/debugfs" 2>&1
debugfs -w -R 'link /usr /usr/lib/again' "$dir/damaged.img" >"$dir/debugfs" 2>&1
refused 'inside of itself' --name damaged "$dir/damaged.img"
ok "a folder inside of itself is refused"
cp "$dir/bare.img" "$dir/dirty.img"
debugfs -w -R 'feature needs_recovery' "$dir/dirty.img" >"$dir/debugfs" 2>&1
refused 'was not unmounted' --name dirty "$dir/dirty.img"
ok "a file system that was not unmounted is refused with the remedy"
truncate -s 64M "$dir/lvm.img"
printf 'LABELONE' | dd of="$dir/lvm.img" bs=512 seek=1 conv=notrunc status=none
refused 'virt-tar-out' --name lvm "$dir/lvm.img"
truncate -s 64M "$dir/xfs.img"
printf 'XFSB' | dd of="$dir/xfs.img" conv=notrunc status=none
refused 'is xfs.*virt-tar-out' --name xfs "$dir/xfs.img"
ok "LVM and xfs are refused with the command that reads them"
mkdir "$dir/nothing"
truncate -s 8M "$dir/nothing.img"
ext "$dir/nothing.img" 0 8 "$dir/nothing"
refused 'no root file system' --name nothing "$dir/nothing.img"
refused 'no partition 7' --partition 7 --name nothing "$dir/gpt.img"
ok "a disk without a system is refused"
truncate -s 170M "$dir/two.img"
printf 'label: gpt\nsize=163840\nsize=163840\n' | sfdisk -q "$dir/two.img" || :
ext "$dir/two.img" 1 80 "$dir/root"
ext "$dir/two.img" 81 80 "$dir/root"
refused 'several partitions.*--partition' --name two "$dir/two.img"
ok "two systems and no sign which: the user is asked"

"$favo" image ls >"$dir/out"
! grep -qE 'back|cut|loop|overlap|damaged|dirty|two' "$dir/out" || fail "a failed import left a name"
ok "no name is left of failed imports"
