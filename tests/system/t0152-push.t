#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# limit: 120
# Images that users push to favod: whose names, how much, and what favod
# refuses. Needs no lab and no Slurm; root, to be two users.
set -eu
. "$(dirname "$0")/../lib/build.sh"
build=${FAVO_BUILD:-$build_root/gcc}
[ -n "${FAVO_BUILD:-}" ] || build_in gcc --enable-werror CC=gcc
. "$top/tests/lib/favod.sh"
[ "$(id -u)" = 0 ] && command -v setpriv >/dev/null || { echo "1..0 # SKIP needs root and setpriv"; exit 0; }

munged_start
favod_conf
plan 32

# What other users run and read, whatever the modes above the build folder.
mkdir "$favod_dir/bin" "$favod_dir/tmp"
cp "$build/provision/cli/favo" "$favod_dir/bin/favo"
chmod 1777 "$favod_dir/tmp"
chmod 644 "$FAVO_CONF"
export TMPDIR="$favod_dir/tmp"
favo=$favod_dir/bin/favo
a="setpriv --reuid=1 --regid=1 --clear-groups" # daemon
b="setpriv --reuid=2 --regid=2 --clear-groups" # bin
echo 'image_quota = 8M' >>"$FAVO_CONF"
favod_start

mkdir -p "$favod_dir/tree/bin" "$favod_dir/mod/6.1.0-test"
head -c 3000000 /dev/urandom >"$favod_dir/tree/bin/random"
gcc -DHANG -nostdlib -static -no-pie -Wl,-Ttext-segment=0x100000,-z,max-page-size=4096 \
	-Wl,--build-id=none -o "$favod_dir/kernel" "$top/tests/system/payload.S" 2>/dev/null
for module in virtio_pci vmw_vsock_virtio_transport virtio_blk erofs overlay; do
	echo "kernel/$module.ko"
done >"$favod_dir/mod/6.1.0-test/modules.builtin"
: >"$favod_dir/mod/6.1.0-test/modules.dep"
import="$favo image import --kernel $favod_dir/kernel --modules $favod_dir/mod/6.1.0-test"
store=$favod_dir/state/store

# refused WORDS COMMAND...: it fails, and says so.
refused() {
	refused_words=$1
	shift
	if "$@" >"$favod_dir/out" 2>&1; then fail "not refused: $*"; fi
	grep -qF -- "$refused_words" "$favod_dir/out" || fail "no '$refused_words' in: $(cat "$favod_dir/out")"
}
# as USER-COMMAND METHOD PATH BODY-FILE: a request with that user's credential
as() {
	as_cred=$(printf '%s\n%s\n%s' "$2" "$3" "$(sha256sum <"$4" | cut -d' ' -f1)" |
		$1 munge --socket="$favod_dir/m/sock" | tr -d '\n')
	send_raw "$2" "$3" "$4" "$as_cred"
}

# shellcheck disable=SC2086
$a $import --name daemon/tiny:v1 "$favod_dir/tree" >"$favod_dir/out" 2>&1 || fail "$(cat "$favod_dir/out")"
grep -q 'pushed  *[0-9.]* MiB' "$favod_dir/out" || fail "no figure: $(cat "$favod_dir/out")"
ok "a user pushes an image"
id=$(sed -n 's/^ *id *\(sha256:[0-9a-f]*\)$/\1/p' "$favod_dir/out")
$a "$favo" image ls | grep -q '^daemon/tiny *v1 ' || fail "it is not listed"
ok "and everybody sees it"
[ -z "$(ls "$favod_dir/tmp")" ] || fail "left in TMPDIR: $(ls "$favod_dir/tmp")"
[ -z "$(find "$store/push" -type f)" ] || fail "left in the stage: $(find "$store/push")"
ok "nothing is left behind on either side"
$a $import --quiet --name daemon/tiny:v2 "$favod_dir/tree" >"$favod_dir/out" 2>&1
sent=$(du -s "$store/blobs" | cut -f1)
$a $import --name daemon/tiny:v3 "$favod_dir/tree" >"$favod_dir/out" 2>&1
grep -q 'pushed  *[0-9.]* [KB]' "$favod_dir/out" || fail "moved again: $(cat "$favod_dir/out")"
[ "$(du -s "$store/blobs" | cut -f1)" -le $((sent + 1200)) ] || fail "the store grew"
ok "what the store has does not move again"
expect 200 "$(as "$a" GET "/v1/manifests/$id" /dev/null)" "the manifest is there"
[ "sha256:$(sha256sum <"$favod_dir/reply" | cut -d' ' -f1)" = "$id" ] || fail "with other bytes"
ok "and has its digest"

# Whose names.
refused 'not yours; call it bin/tiny' $b $import --name daemon/tiny:v1 "$favod_dir/tree"
ok "another user's name is refused"
refused 'call it daemon/tiny' $a $import --name tiny:v1 "$favod_dir/tree"
ok "a site name is refused to users"
[ -z "$(find "$store/push" -type f)" ] || fail "moved before the answer"
ok "before anything moved"
refused 'not yours' $b "$favo" image rm daemon/tiny:v1
ok "another user's image is not removed"
printf '{"digest":"%s"}' "$id" >"$favod_dir/json"
expect 403 "$(as "$b" PUT /v1/images/daemon/tiny:v1 "$favod_dir/json")" "nor pointed elsewhere" "not yours"
expect 403 "$(as "$b" PUT /v1/images/daemonx/tiny "$favod_dir/json")" "nor is a name that only begins alike his" "not yours"
expect 400 "$(as "$b" PUT /v1/images/bin/../x "$favod_dir/json")" "a name that climbs"
$b "$favo" image tag daemon/tiny:v1 bin/mine || fail "a tag on another's image"
ok "a tag of one's own on another's image"
$a "$favo" image rm daemon/tiny:v2 && ! $a "$favo" image ls | grep -q 'tiny *v2' || fail "rm"
ok "one's own is removed"
refused 'no image' $a "$favo" image rm daemon/tiny:v2
ok "and not twice"
favod_stop
echo 'image_admins = root,bin' >>"$FAVO_CONF"
favod_start
# shellcheck disable=SC2086
$b $import --quiet --name tiny:site "$favod_dir/tree" >"$favod_dir/out" 2>&1 || fail "admin: $(cat "$favod_dir/out")"
ok "image_admins may change the site's images"
favod_stop
sed -i 's/^image_admins.*/image_admins = @daemon/' "$FAVO_CONF"
favod_start
$a "$favo" image tag daemon/tiny:v1 tiny:group || fail "a member of the group may not"
refused 'not yours' $b "$favo" image tag daemon/tiny:v1 tiny:other
ok "and so may members of a group"

# Quota.
mkdir "$favod_dir/big"
head -c 9000000 /dev/urandom >"$favod_dir/big/random"
refused 'quota' $a $import --name daemon/big "$favod_dir/big"
ok "more than the quota is refused"
! $a "$favo" image ls | grep -q daemon/big || fail "it has a name"
ok "and makes no image"
rm "$favod_dir/big/random"
head -c 6000000 /dev/urandom >"$favod_dir/big/random"
rm -rf "$store/push/1" # what the refused push left for a next try
refused 'your quota is 8.0 MiB' $a $import --name daemon/big "$favod_dir/big"
ok "two images that are more than it together, too"
$a "$favo" image rm daemon/tiny:v1 daemon/tiny:v3
# shellcheck disable=SC2086
$a $import --quiet --name daemon/big "$favod_dir/big" >"$favod_dir/out" 2>&1 || fail "after rm: $(cat "$favod_dir/out")"
ok "room made by rm counts at once, and the push goes on where it stopped"

# What favod refuses of bytes.
printf 'some bytes' >"$favod_dir/blob"
d=sha256:$(sha256sum <"$favod_dir/blob" | cut -d' ' -f1)
expect 201 "$(as "$a" PUT "/v1/blobs/$d" "$favod_dir/blob")" "a blob"
printf 'some bytez' >"$favod_dir/blob2"
d2=sha256:$(printf '%064d' 7)
expect 400 "$(as "$a" PUT "/v1/blobs/$d2" "$favod_dir/blob2")" "other bytes than the digest says" "does not match"
printf '\050\265\057\375garbage' >"$favod_dir/blob3"
expect 400 "$(as "$a" PUT "/v1/blobs/$d2" "$favod_dir/blob3")" "a damaged frame" "damaged"
head -c 2000000000 /dev/zero | zstd -q --no-check --stream-size=2000000000 >"$favod_dir/bomb"
expect 400 "$(as "$a" PUT "/v1/blobs/$d2" "$favod_dir/bomb")" "a frame that is a bomb" "more than"
printf '\377\377\377\377abc' >"$favod_dir/batch"
expect 400 "$(as "$a" PUT /v1/blobs "$favod_dir/batch")" "a batch with a false length" "cut short"
printf '{"digests":["%s","%s"]}' "$d" "$d2" >"$favod_dir/json"
expect 200 "$(as "$a" POST /v1/blobs/missing "$favod_dir/json")" "what is missing" "{\"missing\":[\"$d2\"]}"
expect 200 "$(as "$b" POST /v1/blobs/missing "$favod_dir/json")" "another user's stage does not count" "\"$d\",\"$d2\""
sed "s/$(printf %s "${id#sha256:}")/x/; s/\"index\":\"sha256:[0-9a-f]*\"/\"index\":\"$d2\"/" \
	"$store/manifests/${id#sha256:}.json" >"$favod_dir/manifest" 2>/dev/null ||
	cp "$store/manifests/"*.json "$favod_dir/manifest"
m=sha256:$(sha256sum <"$favod_dir/manifest" | cut -d' ' -f1)
expect 409 "$(as "$a" PUT "/v1/manifests/$m" "$favod_dir/manifest")" "a manifest without its blobs" "\"missing\":[\"$d2\"]"
expect 400 "$(as "$a" PUT "/v1/manifests/$d2" "$favod_dir/manifest")" "a manifest under another digest" "does not match"
printf '{"digest":"%s"}' "$m" >"$favod_dir/json"
expect 404 "$(as "$a" PUT /v1/images/daemon/none "$favod_dir/json")" "a name for what is not there" "was pushed"
