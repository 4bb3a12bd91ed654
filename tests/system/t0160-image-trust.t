#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# limit: 120
# Signatures of images, judged both ways by signify(1), and what is refused. Needs no lab and no Slurm.
set -eu
. "$(dirname "$0")/../lib/build.sh"
build=${FAVO_BUILD:-$build_root/gcc}
[ -n "${FAVO_BUILD:-}" ] || build_in gcc --enable-werror CC=gcc
. "$top/tests/lib/favod.sh"
command -v signify-openbsd >/dev/null || { echo "1..0 # SKIP signify-openbsd is not installed"; exit 0; }

munged_start
favod_conf
plan 18
favo=$build/provision/cli/favo
d=$favod_dir
favod_start
[ "$(stat -c %a "$d/image.key") $(stat -c %a "$d/image.pub")" = "600 644" ] || fail "key files"
ok "favod makes its image key"

mkdir -p "$d/tree/bin" "$d/mod/6.1.0-test"
head -c 1000000 /dev/urandom >"$d/tree/bin/random"
gcc -DHANG -nostdlib -static -no-pie -Wl,-Ttext-segment=0x100000,-z,max-page-size=4096 \
	-Wl,--build-id=none -o "$d/kernel" "$top/tests/system/payload.S" 2>/dev/null
for module in virtio_pci vmw_vsock_virtio_transport virtio_blk erofs overlay; do
	echo "kernel/$module.ko"
done >"$d/mod/6.1.0-test/modules.builtin"
: >"$d/mod/6.1.0-test/modules.dep"
"$favo" image import --name tiny:v1 --kernel "$d/kernel" --modules "$d/mod/6.1.0-test" \
	"$d/tree" >"$d/out" 2>&1 || fail "$(cat "$d/out")"
hex=$(sed -n 's/^ *id *sha256:\([0-9a-f]*\)$/\1/p' "$d/out")
store=$d/state/store
manifest=$store/manifests/$hex.json
signature=$store/manifests/$hex.sig

# refused WORDS COMMAND...
refused() {
	refused_words=$1
	shift
	if "$@" >"$d/out" 2>&1; then fail "not refused: $*"; fi
	grep -qF -- "$refused_words" "$d/out" || fail "no '$refused_words' in: $(cat "$d/out")"
}

"$favo" image verify tiny:v1 >"$d/out" 2>&1 && grep -q 'signed by image.pub' "$d/out" || fail "$(cat "$d/out")"
ok "an import on favod's host is signed with the site's key"
signify-openbsd -V -q -p "$d/image.pub" -m "$manifest" -x "$signature" || fail "signify refuses it"
ok "signify judges it good"
expect 200 "$(send GET "/v1/manifests/sha256:$hex.sig")" "favod hands the signature out" "untrusted comment: "
expect 404 "$(send GET "/v1/manifests/sha256:$(printf '%064d' 3).sig")" "and none that is not there"

"$favo" image keygen "$d/ours" || fail "keygen"
refused 'not trusted' "$favo" image verify --keys "$d/ours.pub" tiny:v1
ok "another key does not believe it"
"$favo" image sign --key "$d/ours.sec" tiny:v1 || fail "sign"
"$favo" image verify --keys "$d/ours.pub" tiny:v1 >/dev/null && "$favo" image verify tiny:v1 >/dev/null || fail "two keys"
ok "an image may have several signatures"
echo hello >"$d/message"
signify-openbsd -S -s "$d/ours.sec" -m "$d/message" -x "$d/message.sig" || fail "signify cannot use our key"
signify-openbsd -V -q -p "$d/ours.pub" -m "$d/message" -x "$d/message.sig" || fail "our public key"
ok "signify signs and judges with keys of ours"
signify-openbsd -G -n -p "$d/theirs.pub" -s "$d/theirs.sec"
chmod 600 "$d/theirs.sec"
"$favo" image sign --key "$d/theirs.sec" tiny:v1 && "$favo" image verify --keys "$d/theirs.pub" tiny:v1 >/dev/null ||
	fail "a key of signify"
ok "we sign with keys of signify"
signify-openbsd -S -s "$d/theirs.sec" -m "$manifest" -x "$signature"
"$favo" image verify --keys "$d/theirs.pub" tiny:v1 >/dev/null || fail "signify's signature"
ok "and judge signatures of signify"
"$favo" image sign tiny:v1 && mkdir "$d/keys" && cp "$d/image.pub" "$d/ours.pub" "$d/keys" &&
	"$favo" image verify --keys "$d/keys" tiny:v1 | grep -q image.pub || fail "a folder of keys"
ok "keys may be a folder"
chmod 644 "$d/ours.sec"
refused 'chmod 600' "$favo" image sign --key "$d/ours.sec" tiny:v1
ok "a secret key that others may read is refused"
cp "$signature" "$d/good.sig"
sed -i '2s/^\(.\{60\}\)./\1A/;4s/^\(.\{60\}\)./\1A/' "$signature"
cmp -s "$signature" "$d/good.sig" && sed -i '2s/^\(.\{60\}\)./\1B/;4s/^\(.\{60\}\)./\1B/' "$signature"
refused 'does not fit' "$favo" image verify --keys "$d/keys" tiny:v1
ok "a changed signature is refused"
echo garbage >"$signature"
refused "untrusted comment" "$favo" image verify tiny:v1
ok "and so is what is none"
rm "$signature"
refused 'is not signed' "$favo" image verify tiny:v1
ok "an image without is said to have none"

# History of a tag.
"$favo" image import --name tiny:v2 --kernel "$d/kernel" --modules "$d/mod/6.1.0-test" "$d/tree" >/dev/null 2>&1
"$favo" image tag tiny:v2 tiny:v1 && "$favo" image history tiny:v1 >"$d/out" || fail "history"
[ "$(grep -c '^sha256:' "$d/out")" = 2 ] && grep -q "^sha256:$hex .*kept" "$d/out" || fail "$(cat "$d/out")"
ok "a tag remembers what it pointed to"
"$favo" image tag "tiny@sha256:$hex" tiny:v1 && "$favo" image history tiny:v1 | sed -n 2p | grep -q "$hex.*current" ||
	fail "back: $("$favo" image history tiny:v1)"
ok "and can be set back"

# One byte of a manifest in the store.
cp "$manifest" "$d/manifest"
sed -i 's/x86_64/x86_65/' "$manifest"
expect 500 "$(send GET "/v1/manifests/sha256:$hex")" "a changed manifest is not handed out" "$hex"
