#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# favo image as a program: import of folders and tars, names, damage, removal,
# a full disk, and kill -9 at any moment. Needs no lab; mmdebstrap only where
# FAVO_TEST_BUILD=1 asks for a real build.
set -eu
. "$(dirname "$0")/../lib/build.sh"
build=${FAVO_BUILD:-$build_root/gcc}
[ -n "${FAVO_BUILD:-}" ] || build_in gcc --enable-werror CC=gcc
favo=$build/provision/cli/favo
dir=$(mktemp -d "${TMPDIR:-/tmp}/favo-image-XXXXXX")
trap 'umount "$dir/small" 2>/dev/null || :; rm -rf "$dir"' EXIT
store=$dir/store
FAVO_CONF_STORE_DIR=$store
export FAVO_CONF_STORE_DIR
plan 27

# image WORDS...: favo image, output in $dir/out and $dir/err
image() {
	"$favo" image "$@" >"$dir/out" 2>"$dir/err"
}

must() {
	image "$@" || fail "favo image $*: $(cat "$dir/err")"
}

# refused SENTENCE WORDS...
refused() {
	sentence=$1
	shift
	if image "$@"; then
		fail "favo image $*: done, and should be refused"
	fi
	grep -q -- "$sentence" "$dir/err" || fail "no '$sentence' in: $(cat "$dir/err")"
	[ "$(tail -n 1 "$dir/err" | wc -c)" -lt 600 ] || fail "not one sentence"
}

# A system that boots nowhere, but has all that the import looks for.
make_root() {
	root=$1
	rel=6.1.0-test
	mkdir -p "$root/etc/ssh" "$root/usr/bin" "$root/boot" "$root/usr/lib/modules/$rel/kernel"
	printf 'PRETTY_NAME="Test system"\nID=test\n' >"$root/etc/os-release"
	echo key >"$root/etc/ssh/ssh_host_rsa_key"
	# Bytes that do not compress, the same in every run: so are their chunks.
	openssl enc -aes-128-ctr -nosalt -K "$(printf %032d 7)" -iv "$(printf %032d 0)" \
		</dev/zero 2>/dev/null | head -c 3000000 >"$root/usr/bin/program"
	ln "$root/usr/bin/program" "$root/usr/bin/alias"
	ln -s program "$root/usr/bin/link"
	: >"$root/usr/lib/modules/$rel/modules.dep"
	printf 'k/%s.ko\n' virtio_pci virtio_blk erofs overlay vmw_vsock_virtio_transport \
		>"$root/usr/lib/modules/$rel/modules.builtin"
	# An ELF file with one note: XEN_ELFNOTE_PHYS32_ENTRY.
	{
		printf '\177ELF\2\1\1\0\0\0\0\0\0\0\0\0\2\0\76\0\1\0\0\0\0\0\0\1\0\0\0\0'
		printf '\100\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\100\0\70\0\1\0\0\0\0\0\0\0'
		printf '\4\0\0\0\4\0\0\0\170\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0'
		printf '\24\0\0\0\0\0\0\0\24\0\0\0\0\0\0\0\4\0\0\0\0\0\0\0'
		printf '\4\0\0\0\4\0\0\0\22\0\0\0Xen\0\0\0\0\1'
	} >"$root/boot/vmlinuz-$rel"
}

refused "no recipe nonesuch" build nonesuch
ok "an unknown recipe is an error"
refused "$store" show anything
ok "no store: the error names the folder"

make_root "$dir/root"
must import --name one "$dir/root"
grep -q 'dropped secret /etc/ssh/ssh_host_rsa_key' "$dir/err" || fail "secret: $(cat "$dir/err")"
ok "import of a folder names the secrets it dropped"
must show --json one
grep -q '"etc/ssh/ssh_host_rsa_key"' "$dir/out" || fail "manifest: $(cat "$dir/out")"
ok "so does the manifest"
must show one
grep -q 'Test system' "$dir/out" || fail "show: $(cat "$dir/out")"
id=$(sed -n 's/^id *//p' "$dir/out")
ok "show names system and id"
must import --quiet --name one "$dir/root"
[ "$(cat "$dir/out")" = "$id" ] || fail "the same folder gives $(cat "$dir/out")"
ok "a second import of the same folder gives the same id"

tar -C "$dir/root" --sort=name -cf "$dir/root.tar" .
tar -C "$dir/root" --sort=name -czf "$dir/two.tgz" .
must import --quiet "$dir/root.tar"
id_tar=$(cat "$dir/out")
must import --quiet --name root "$dir/two.tgz"
[ "$(cat "$dir/out")" = "$id_tar" ] || fail "tar and tgz give different images"
ok "tar and compressed tar give the same image; the name comes from the file"
"$favo" image import --quiet --name root - <"$dir/root.tar" >"$dir/out" 2>"$dir/err" ||
	fail "stdin: $(cat "$dir/err")"
[ "$(cat "$dir/out")" = "$id_tar" ] || fail "stdin gives another image"
ok "a tar on stdin gives the same image"
{
	cat "$dir/root.tar"
	head -c 600000 /dev/zero
	echo $? >"$dir/status"
} | "$favo" image import --quiet --name root - >"$dir/out" 2>"$dir/err" ||
	fail "padded: $(cat "$dir/err")"
[ "$(cat "$dir/status")" = 0 ] || fail "who writes padding to the pipe fails"
ok "a program that pads its tar may write all of it"

must ls
[ "$(wc -l <"$dir/out")" = 3 ] || fail "ls: $(cat "$dir/out")"
must ls --json
grep -q "\"$id_tar\"" "$dir/out" || fail "ls --json: $(cat "$dir/out")"
ok "ls lists them, as table and as JSON"
refused "near: one:latest" show onne
ok "an unknown name is answered with near ones"
must tag one site/one:v2
must show site/one:v2
must show "$id"
ok "tag adds a name; a digest is a name, too"
refused "is no image name" tag one 'bad name'
refused "no image two" rm two
ok "bad and unknown names are refused"

before=$(du -s --apparent-size "$store/blobs" | cut -f1)
cp -a "$dir/root" "$dir/edited"
printf 'new file in front of all\n' >"$dir/edited/etc/aaa"
must import --name edited "$dir/edited"
after=$(du -s --apparent-size "$store/blobs" | cut -f1)
[ $((after - before)) -lt 500 ] || fail "an edit of some bytes added $((after - before)) KiB"
ok "an edited image shares nearly all with the first"

mkdir "$dir/empty"
refused "has no kernel" import --name nokernel "$dir/empty"
ok "an image without a kernel is refused"
must import --name sitekernel --kernel "$dir/root/boot/vmlinuz-6.1.0-test" \
	--modules "$dir/root/usr/lib/modules/6.1.0-test" "$dir/empty"
must show sitekernel
grep -q 'from the site' "$dir/out" || fail "kernel: $(cat "$dir/out")"
ok "--kernel and --modules make it bootable"
cp -a "$dir/root" "$dir/nokmod"
: >"$dir/nokmod/usr/lib/modules/6.1.0-test/modules.builtin"
refused "no module virtio_pci" import --name nokmod "$dir/nokmod"
ok "a kernel that cannot boot as a guest is refused"
FAVO_CONF_SITE_KERNEL=$dir/root/boot/vmlinuz-6.1.0-test \
	FAVO_CONF_SITE_MODULES=$dir/root/usr/lib/modules/6.1.0-test \
	"$favo" image import --name site "$dir/nokmod" >"$dir/out" 2>"$dir/err" ||
	fail "site kernel: $(cat "$dir/err")"
grep -q 'does not fit: .*no module virtio_pci' "$dir/err" || fail "no reason: $(cat "$dir/err")"
grep -q 'site, because the image has none that fits' "$dir/err" || fail "$(cat "$dir/err")"
grep -q 'from the site' "$dir/out" || fail "kernel: $(cat "$dir/out")"
cp -a "$dir/nokmod/usr/lib/modules/6.1.0-test" "$dir/nokmod/usr/lib/modules/5.9.0-old"
cp "$dir/nokmod/boot/vmlinuz-6.1.0-test" "$dir/nokmod/boot/vmlinuz-5.9.0-old"
cp "$dir/root/usr/lib/modules/6.1.0-test/modules.builtin" \
	"$dir/nokmod/usr/lib/modules/5.9.0-old/modules.builtin"
must import --name older "$dir/nokmod"
grep -q '5.9.0-old, vmlinux, from the image' "$dir/out" || fail "kernel: $(cat "$dir/out")"
rm -r "$dir/nokmod/usr/lib/modules/5.9.0-old"
ok "else an older kernel of the image, or the site's, and the reason is told"
echo garbage >"$dir/nokmod/boot/vmlinuz-6.1.0-test"
refused "neither a bzImage nor" import --name nokmod "$dir/nokmod"
ok "a file that is no kernel is refused"
head -c 2000000 "$dir/two.tgz" >"$dir/cut.tgz"
refused "tar: " import --name cut "$dir/cut.tgz"
ok "a tar that was cut is refused"
ln -s /tmp "$dir/empty/out"
tar -C "$dir" -cf "$dir/evil.tar" --transform 's,root/etc/os-release,out/favo-evil,' \
	-C "$dir/empty" out -C "$dir" root/etc/os-release
refused "leads through the symlink" import --name evil "$dir/evil.tar"
[ ! -e /tmp/favo-evil ] || fail "the tar wrote to the host"
ok "a tar that writes through a symlink is refused"
must ls
! grep -qE 'nokernel|nokmod|cut|evil' "$dir/out" || fail "a failed import left a name"
[ -z "$(ls "$store/tmp")" ] || fail "left in tmp: $(ls "$store/tmp")"
ok "failed imports leave neither name nor temporary file"

# kill -9: whatever is named must be whole, and gc leaves no rest.
i=0
while [ $i -lt 12 ]; do
	i=$((i + 1))
	head -c 2000000 /dev/urandom >"$dir/edited/usr/bin/more"
	"$favo" image import --quiet --name "kill$i" "$dir/edited" >"$dir/out" 2>&1 &
	pid=$!
	sleep "0.0$((i * 7 % 10))"
	kill -9 $pid 2>/dev/null || :
	wait $pid 2>/dev/null || :
done
must ls
names=$(sed 1d "$dir/out" | awk '{ print $1 ":" $2 }')
for name in $names; do
	must show "$name"
done
must gc
[ -z "$(ls "$store/tmp")" ] || fail "gc left: $(ls "$store/tmp")"
must show edited
ok "12 imports killed: all names are whole, gc cleans up"

if [ "$(id -u)" = 0 ] && mkdir "$dir/small" && mount -t tmpfs -o size=2m none "$dir/small" 2>/dev/null; then
	"$favo" --help >/dev/null
	FAVO_CONF_STORE_DIR=$dir/small/store
	refused "No space left" import --name big "$dir/root"
	must ls
	[ "$(wc -l <"$dir/out")" = 1 ] || fail "full disk: $(cat "$dir/out")"
	[ -z "$(ls "$dir/small/store/tmp")" ] || fail "full disk: files in tmp"
	FAVO_CONF_STORE_DIR=$store
	umount "$dir/small"
	ok "a full disk: one sentence, nothing left"
else
	ok "a full disk # SKIP needs root to mount a small file system"
fi

blob=$(find "$store/blobs" -type f -size +20k | head -n 1)
printf 'x' | dd of="$blob" bs=1 seek=1000 conv=notrunc 2>/dev/null
must ls
ok "a flipped byte in a chunk does not hinder the list"

# shellcheck disable=SC2086
must rm $names
must ls
[ "$(wc -l <"$dir/out")" = 1 ] || fail "rm: $(cat "$dir/out")"
[ "$(find "$store/blobs" "$store/manifests" "$store/refs" -type f | wc -l)" = 0 ] ||
	fail "rm of all images left $(find "$store" -type f)"
ok "rm of all names empties the store"

if [ "${FAVO_TEST_BUILD:-0}" = 1 ]; then
	printf 'name tiny\nsuite bookworm\nvariant essential\nkernel linux-image-cloud-amd64\n%s\n' \
		'run echo built >/etc/built' >"$dir/tiny.recipe"
	must build --log "$dir/log" "$dir/tiny.recipe"
	must show tiny
	ok "a recipe is built"
else
	printf 'name bad\nsuite no-such-suite\n' >"$dir/bad.recipe"
	if [ "$(id -u)" = 0 ] && command -v mmdebstrap >/dev/null; then
		refused "see $dir/log" build --log "$dir/log" "$dir/bad.recipe"
	else
		refused "root" build --log "$dir/log" "$dir/bad.recipe"
	fi
	ok "a build that fails names its log"
fi
