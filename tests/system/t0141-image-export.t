#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# limit: 120
# favo image export and diff: what goes out comes back the same, judged by tar,
# umoci and fsck.erofs; with the store, and as a user through favod. Needs no lab.
set -eu
. "$(dirname "$0")/../lib/build.sh"
build=${FAVO_BUILD:-$build_root/gcc}
[ -n "${FAVO_BUILD:-}" ] || build_in gcc --enable-werror CC=gcc
. "$(dirname "$0")/../lib/favod.sh"
for need in skopeo umoci python3 jq fsck.erofs; do
	command -v "$need" >/dev/null || { echo "1..0 # SKIP $need is not installed"; exit 0; }
done
favo=$build/provision/cli/favo
oci=$top/tests/lib/ociimage.py
dir=$favod_dir/x
mkdir -p "$dir"
munged_start
favod_conf
favod_start
plan 13

must() {
	"$favo" image "$@" >"$dir/out" 2>"$dir/err" || fail "favo image $*: $(cat "$dir/err")"
}

import() {
	must import --quiet --kernel "$dir/k/vmlinux" --modules "$dir/k/modules/6.1.0-test" "$@"
}

refused() {
	sentence=$1
	shift
	! "$favo" image "$@" >"$dir/out" 2>"$dir/err" || fail "favo image $*: done, and should be refused"
	grep -q -- "$sentence" "$dir/err" || fail "no '$sentence' in: $(cat "$dir/err")"
}

# root NAME: digest of all of its file system
root() {
	"$favo" image show --json "$1" | jq -r .root.index
}

python3 "$oci" kernel "$dir/k"
python3 "$oci" image "$dir/a" gzip gzip gzip
import --name x "oci:$dir/a"
first=$(root x)

must export x "$dir/x.tar"
import --name x "$dir/x.tar"
[ "$(root x)" = "$first" ] || fail "another root than before"
ok "a tar comes back as the same file system"
mkdir "$dir/unpacked"
tar -C "$dir/unpacked" --xattrs --xattrs-include='*' --numeric-owner -xpf "$dir/x.tar" || fail "tar refuses it"
import --name x "$dir/unpacked"
[ "$(root x)" = "$first" ] || fail "another root than before"
ok "so does what GNU tar unpacks"
must export x "tar:$dir/again.tar"
cmp "$dir/x.tar" "$dir/again.tar" || fail "other bytes"
"$favo" image export x - >"$dir/stdout.tar" && cmp "$dir/x.tar" "$dir/stdout.tar" || fail "other bytes on stdout"
ok "the same image gives the same bytes, on stdout too"
import --name x "oci:$dir/a"
must export x "oci:$dir/layout:v1"
import --name x "oci:$dir/layout:v1"
[ "$(root x)" = "$first" ] || fail "another root than before"
[ "$("$favo" image show --json x | jq -c .config.cmd)" = '["--serve"]' ] || fail "no configuration"
ok "a layout comes back, with what a container's process gets"
umoci unpack --image "$dir/layout:v1" "$dir/bundle" >"$dir/umoci.log" 2>&1 || fail "umoci: $(tail -n 3 "$dir/umoci.log")"
import --name x "$dir/bundle/rootfs"
[ "$(root x)" = "$first" ] || fail "umoci unpacks another tree"
skopeo inspect "oci:$dir/layout:v1" >"$dir/out" || fail "skopeo refuses the layout"
ok "umoci unpacks the same tree, and skopeo reads the layout"
must export x "erofs:$dir/x.erofs"
fsck.erofs "$dir/x.erofs" >"$dir/out" 2>&1 || fail "fsck.erofs: $(cat "$dir/out")"
[ "$(stat -c %s "$dir/x.erofs")" = "$("$favo" image show --json x | jq .root.size)" ] || fail "size"
ok "fsck.erofs judges the file system good"

refused "is there already" export x "$dir/x.tar"
refused "File exists" export x "oci:$dir/layout"
refused "no image nonesuch" export nonesuch "$dir/none.tar"
ok "no file is written over; no such image"

# A chunk of the image damaged in the store.
blob=$(find "$favod_dir/state/store/blobs" -type f -size +16k | sort | head -n 1)
cp -p "$blob" "$dir/blob"
printf 'X' | dd of="$blob" bs=1 seek=9000 conv=notrunc status=none
refused "digest\|damaged" export x "$dir/bad.tar"
[ ! -e "$dir/bad.tar" ] && [ ! -e "$dir/bad.tar.part" ] || fail "a file is left"
cp -p "$dir/blob" "$blob"
ok "a flipped byte in the store is refused, and leaves no file"

# A file added, one removed, one changed, one with another mode, one with another time.
mkdir "$dir/old"
printf 'ID=test\n' >"$dir/os"
for tree in old new; do
	mkdir -p "$dir/$tree/etc" "$dir/$tree/bin"
	cp "$dir/os" "$dir/$tree/etc/os-release"
	echo same >"$dir/$tree/etc/same"
	echo "$tree" >"$dir/$tree/etc/changed"
	echo mode >"$dir/$tree/etc/mode"
	touch -d @1700000000 "$dir/$tree/etc"/* "$dir/$tree/etc"
	cp "$dir/k/vmlinux" "$dir/$tree/bin/large"
done
head -c 100000 /dev/urandom >"$dir/new/bin/added"
echo gone >"$dir/old/bin/removed"
chmod 600 "$dir/new/etc/mode"
touch -d @1800000000 "$dir/new/etc/same"
import --name d:1 "$dir/old"
import --name d:2 "$dir/new"
must diff --json d:1 d:2
[ "$(jq -c '[.added[] | [.path, .size]]' "$dir/out")" = '[["bin/added",100000]]' ] || fail "$(cat "$dir/out")"
[ "$(jq -c '[.removed[] | [.path, .size]]' "$dir/out")" = '[["bin/removed",5]]' ] || fail "$(cat "$dir/out")"
[ "$(jq -c '[.changed[] | select(.path != "etc/os-release") | [.path, .what]]' "$dir/out")" = \
	'[["etc/changed","content"],["etc/mode","owner or mode"]]' ] || fail "$(cat "$dir/out")"
jq -e '.times >= 1 and .chunks.new >= 1 and .chunks.new_bytes >= 100000' "$dir/out" >/dev/null || fail "$(cat "$dir/out")"
ok "diff names what was added, removed and changed"
must diff d:1 d:2
grep -q '^+ bin/added  97.7 KiB' "$dir/out" && grep -q '^- bin/removed  5 B' "$dir/out" &&
	grep -q '^~ etc/mode  owner or mode' "$dir/out" && grep -q '^chunks  ' "$dir/out" || fail "$(cat "$dir/out")"
ok "so it does for people"
must diff x x
grep -q '^files   0 added (0 B), 0 removed (0 B), 0 changed, 0 with' "$dir/out" || fail "$(cat "$dir/out")"
ok "an image does not differ from itself"

# As somebody who has no store: through favod.
if [ "$(id -u)" = 0 ]; then
	chmod 755 "$favod_dir" "$dir"
	as="setpriv --reuid=65534 --regid=65534 --clear-groups env TMPDIR=/tmp"
else
	as="env FAVO_CONF_STORE_DIR=/nonesuch"
fi
$as "$favo" image export x - >"$dir/user.tar" 2>"$dir/err" || fail "as a user: $(cat "$dir/err")"
cmp "$dir/x.tar" "$dir/user.tar" || fail "other bytes"
ok "a user without a store gets the same from favod"
$as "$favo" image diff --json d:1 d:2 >"$dir/user.json" 2>"$dir/err" || fail "as a user: $(cat "$dir/err")"
"$favo" image diff --json d:1 d:2 | cmp - "$dir/user.json" || fail "another diff"
ok "and the same diff"
