#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# favod as a program: start, bad input of every kind, reports of nodes, what
# users are shown, end. Needs no lab and no Slurm.
set -eu
. "$(dirname "$0")/../lib/build.sh"
build=${FAVO_BUILD:-$build_root/gcc}
[ -n "${FAVO_BUILD:-}" ] || build_in gcc --enable-werror CC=gcc
. "$top/tests/lib/favod.sh"

favo=$build/provision/cli/favo
munged_start
favod_conf
plan 40

"$build/provision/favod/favod" --config "$FAVO_CONF" --check >"$favod_dir/out" 2>&1 ||
	fail "--check: $(cat "$favod_dir/out")"
[ "$(stat -c %a "$favod_dir/grant.key") $(stat -c %a "$favod_dir/grant.pub")" = "600 644" ] ||
	fail "key files have other modes"
ok "--check makes key, store and registry"
cp "$favod_dir/grant.key" "$favod_dir/key.before"
favod_start
cmp -s "$favod_dir/grant.key" "$favod_dir/key.before" || fail "the key changed"
ok "starts, and keeps the key"

echo 'no_such_key = 1' >"$favod_dir/bad.conf"
if "$build/provision/favod/favod" --config "$favod_dir/bad.conf" --check 2>"$favod_dir/out"; then
	fail "an unknown key is taken"
fi
grep -q 'bad.conf:1: ' "$favod_dir/out" || fail "no file and line: $(cat "$favod_dir/out")"
ok "an unknown key in the configuration is an error with file and line"

# Who asks?
expect 200 "$(send GET /v1/version)" "a signed request is answered" '"version"'
cred=$(sign GET /v1/version /dev/null)
: >"$favod_dir/body"
expect 200 "$(send_raw GET /v1/version "$favod_dir/body" "$cred")" "a credential is taken once"
expect 401 "$(send_raw GET /v1/version "$favod_dir/body" "$cred")" "and not twice" Replayed
expect 401 "$(send GET /v1/vcs '' "$(sign GET /v1/version /dev/null)")" \
	"a credential for another path is refused" "for another request"
printf 'changed' >"$favod_dir/body2"
expect 401 "$(send_raw POST /v1/grants "$favod_dir/body2" "$(sign POST /v1/grants /dev/null)")" \
	"a changed body is refused" "for another request"
expect 401 "$(send GET /v1/version '' "MUNGE:garbage:")" "a credential that is none is refused"
expect 401 "$(curl -s -o "$favod_dir/reply" -w '%{http_code}' \
	"http://127.0.0.1:$favod_port/v1/version")" "no credential is refused" "X-Favo-Munge"

# Requests of a wrong form.
expect 404 "$(send GET /v2/version)" "an unknown path" "no path"
expect 405 "$(send DELETE /v1/images)" "a wrong method" "does not work on"
expect 400 "$(send POST /v1/grants '{"image":')" "cut JSON" "JSON"
expect 400 "$(send POST /v1/grants '{"image":"a","image":"b"}')" "a key given twice" duplicate
expect 400 "$(send POST /v1/grants '[]')" "JSON that is no object" "not an object"
expect 400 "$(send POST /v1/grants '{"image":"a","cpus":0,"mem_mb":0,"per_node":1,"network":"private","sudo":1}')" \
	"an unknown key" sudo
expect 400 "$(send POST /v1/grants '{"image":"../../etc","cpus":0,"mem_mb":0,"per_node":1,"network":"private"}')" \
	"a name that climbs"
expect 400 "$(send POST /v1/grants '{"image":"a","cpus":-1,"mem_mb":0,"per_node":1,"network":"private"}')" \
	"a number out of range" cpus
expect 404 "$(send POST /v1/grants '{"image":"nosuch","cpus":0,"mem_mb":0,"per_node":1,"network":"private"}')" \
	"an unknown image" '"near"'
head -c 100000 /dev/zero | tr '\0' ' ' >"$favod_dir/big"
expect 413 "$(send_raw POST /v1/grants "$favod_dir/big" x)" "a body that is too long" "more than 8192"
got=$(send_raw POST /v1/grants "$favod_dir/big" x -H 'Transfer-Encoding: chunked')
[ "$got" = 000 ] || [ "$got" = 413 ] || fail "a long chunked body gives $got"
ok "a long body in chunks is cut off"
expect 404 "$(send GET "/v1/blobs/sha256:$(printf '%064d' 0)")" "a blob that is not there"
expect 400 "$(send GET /v1/blobs/sha256:../../../../etc/passwd)" "a digest that is none"
{ printf 'POST /v1/grants HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{'; sleep 0.2; } |
	timeout 5 curl -s "telnet://127.0.0.1:$favod_port" >"$favod_dir/out" 2>&1 || true
expect 200 "$(send GET /v1/version)" "a request that breaks off hurts nobody"

# Images: a tree that nobody boots, with a kernel that hangs.
mkdir -p "$favod_dir/tree/bin" "$favod_dir/mod/6.1.0-test"
head -c 300000 /dev/urandom >"$favod_dir/tree/bin/random"
gcc -DHANG -nostdlib -static -no-pie -Wl,-Ttext-segment=0x100000,-z,max-page-size=4096 \
	-Wl,--build-id=none -o "$favod_dir/kernel" "$top/tests/system/payload.S" 2>/dev/null
for module in virtio_pci vmw_vsock_virtio_transport virtio_blk erofs overlay; do
	echo "kernel/$module.ko"
done >"$favod_dir/mod/6.1.0-test/modules.builtin"
: >"$favod_dir/mod/6.1.0-test/modules.dep"
"$favo" image import "$favod_dir/tree" --quiet --name tiny:v1 --kernel "$favod_dir/kernel" \
	--modules "$favod_dir/mod/6.1.0-test" >"$favod_dir/out" 2>&1 || fail "$(cat "$favod_dir/out")"
expect 200 "$(send GET /v1/images)" "images are listed" '"tag":"v1"'
expect 200 "$(send GET /v1/images/tiny:v1)" "and shown" '"fstype":"erofs"'
digest=$(sed 's/.*"digest":"\(sha256:[0-9a-f]*\)","manifest".*/\1/' "$favod_dir/reply")
expect 404 "$(send GET /v1/images/tiny)" "a tag that is not there" '"near":["tiny:v1"]'
expect 200 "$(send GET "/v1/manifests/$digest")" "a manifest"
[ "sha256:$(sha256sum <"$favod_dir/reply" | cut -d' ' -f1)" = "$digest" ] || fail "its bytes have another digest"
ok "is the bytes that its digest names"
index=$(sed 's/.*"index":"\(sha256:[0-9a-f]*\)".*/\1/' "$favod_dir/reply")
expect 200 "$(send GET "/v1/blobs/$index")" "a blob"
size=$(stat -c %s "$favod_dir/reply")
cp "$favod_dir/reply" "$favod_dir/blob"
expect 200 "$(send POST /v1/blobs "{\"digests\":[\"$index\",\"$index\"]}")" "two blobs at once"
{ printf "$(printf '\\%03o\\%03o\\0\\0' $((size % 256)) $((size / 256)))"; cat "$favod_dir/blob"; } >"$favod_dir/one"
cat "$favod_dir/one" "$favod_dir/one" | cmp -s - "$favod_dir/reply" || fail "the batch has another form"
ok "each with its length before it"
expect 404 "$(send POST /v1/blobs "{\"digests\":[\"$index\",\"sha256:$(printf '%064d' 1)\"]}")" \
	"a batch with one that is not there"
expect 201 "$(send POST /v1/grants '{"image":"tiny:v1","cpus":2,"mem_mb":512,"per_node":1,"network":"none"}')" \
	"a grant" "\"digest\":\"$digest\""

# What nodes report is what users see.
vm='{"job":12,"index":0,"name":"vm0","address":"10.128.0.1","uid":1000,"grant":"aaaa","state":"ready","timeline":{"image_ms":10,"boot_ms":20,"network_ms":300,"ready_ms":400}}'
expect 200 "$(send POST /v1/nodes/n1/report "{\"version\":\"0.1.0\",\"vms\":[$vm]}")" "a node reports"
expect 400 "$(send POST /v1/nodes/n1/report '{"version":"0.1.0","vms":[{"job":0}]}')" "a bad report" 'vms[0]'
expect 400 "$(send POST '/v1/nodes/n1;rm/report' '{"version":"0.1.0","vms":[]}')" "a bad node name" "no name of a node"
"$favo" vc ls >"$favod_dir/out" && grep -Eq '^ *12 .* ready ' "$favod_dir/out" ||
	fail "vc ls: $(cat "$favod_dir/out")"
"$favo" vc show 12 >"$favod_dir/out" &&
	grep -Eq '^vm0 +n1 +10.128.0.1 +ready +0.01 s +0.02 s +0.30 s +0.40 s +-$' "$favod_dir/out" ||
	fail "vc show: $(cat "$favod_dir/out")"
"$favo" vc show --json 12 | grep -q '"address": "10.128.0.1"' || fail "vc show --json"
ok "favo vc ls and show print it"

if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then
	chmod 755 "$favod_dir"
	chmod 644 "$FAVO_CONF"
	other="setpriv --reuid=1 --regid=1 --clear-groups"
	$other "$favo" vc show 12 >"$favod_dir/out" 2>&1 && fail "a stranger sees the cluster"
	grep -q 'job 12 has no virtual cluster' "$favod_dir/out" || fail "$(cat "$favod_dir/out")"
	printf '{"version":"1","vms":[]}' >"$favod_dir/body"
	cred=$(printf 'POST\n/v1/nodes/n1/report\n%s' "$(sha256sum <"$favod_dir/body" | cut -d' ' -f1)" |
		$other munge --socket="$favod_dir/m/sock" | tr -d '\n')
	expect 403 "$(send_raw POST /v1/nodes/n1/report "$favod_dir/body" "$cred")" \
		"others see and report nothing" "only root"
else
	ok "others see and report nothing # SKIP not root"
fi

favod_stop
grep -q 'signal 15: ending' "$favod_dir/favod.log" || fail "no last line in the log"
favod_start
"$favo" vc show 12 >/dev/null || fail "the registry forgot"
favod_stop
ok "SIGTERM ends it cleanly, and the registry survives"
