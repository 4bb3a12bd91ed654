#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# limit: 300
# Import of container images: from layouts and archives, judged by umoci; from
# Debian's docker-registry with passwords and tokens; from a registry that
# misbehaves; and at submission, by favo-submit and favod. Needs no lab.
set -eu
. "$(dirname "$0")/../lib/build.sh"
build=${FAVO_BUILD:-$build_root/gcc}
[ -n "${FAVO_BUILD:-}" ] || build_in gcc --enable-werror CC=gcc
. "$(dirname "$0")/../lib/favod.sh"
for need in docker-registry skopeo umoci zstd openssl python3 jq; do
	command -v "$need" >/dev/null || { echo "1..0 # SKIP $need is not installed"; exit 0; }
done
favo=$build/provision/cli/favo
oci=$top/tests/lib/ociimage.py
dir=$favod_dir/oci
mkdir -p "$dir/home"
pids=
trap 'for pid in $pids; do kill "$pid" 2>/dev/null || :; done; favod_cleanup' EXIT
FAVO_CONF_STORE_DIR=$dir/store
FAVO_CREDENTIALS=$dir/credentials
FAVO_CONF_REGISTRY_HTTP=127.0.0.1
HOME=$dir/home
export FAVO_CONF_STORE_DIR FAVO_CREDENTIALS FAVO_CONF_REGISTRY_HTTP HOME
unset FAVO_CONF REGISTRY_AUTH_FILE XDG_RUNTIME_DIR DOCKER_CONFIG http_proxy HTTP_PROXY || :
plan 25

import() {
	"$favo" image import --quiet --kernel "$dir/k/vmlinux" \
		--modules "$dir/k/modules/6.1.0-test" "$@" >"$dir/out" 2>"$dir/err"
}

must() {
	import "$@" || fail "favo image import $*: $(cat "$dir/err")"
}

# refused SENTENCE WORDS...
refused() {
	sentence=$1
	shift
	if import --name refused "$@"; then
		fail "import $*: done, and should be refused"
	fi
	grep -q -- "$sentence" "$dir/err" || fail "no '$sentence' in: $(cat "$dir/err")"
}

# root of the last import: digest of all of its file system
root() {
	"$favo" image show --json "${1:-x}" | jq -r .root.index
}

# same: the image x is the one that umoci unpacked
same() {
	[ "$(root)" = "$judge" ] || fail "$1: another root than umoci's"
}

# server NAME OPTION...: a misbehaving registry on $port
server() {
	name=$1
	shift
	python3 "$top/tests/lib/registry.py" serve --layout "$dir/a" --dir "$dir/$name" "$@" \
		2>"$dir/$name.log" &
	pids="$pids $!"
	wait_until "registry $name" test -f "$dir/$name/port"
	port=$(cat "$dir/$name/port")
}

python3 "$oci" kernel "$dir/k"
python3 "$oci" image "$dir/g" gzip gzip gzip
python3 "$oci" image "$dir/a" gzip two-gzip zstd

# ---- the judge

umoci unpack --image "$dir/g:latest" "$dir/bundle" >"$dir/umoci.log" 2>&1 ||
	fail "umoci: $(tail -n 3 "$dir/umoci.log")"
must --name x "$dir/bundle/rootfs"
judge=$(root)
must --name x "oci:$dir/g"
same "gzip layers"
must --name x "oci:$dir/a:latest"
same "gzip, two gzip members and zstd"
must --name x "$dir/a"
same "a folder that is a layout"
ok "a layout gives the tree that umoci unpacks, whatever its layers are packed with"
[ "$("$favo" image show --json x | jq -c .config)" = \
	'{"cmd":["--serve"],"entrypoint":["/usr/bin/a"],"env":["PATH=/usr/bin","LANG=C"],"workdir":"/srv"}' ] ||
	fail "config: $("$favo" image show --json x | jq -c .config)"
ok "environment, entry point and command are in the manifest"
tar -C "$dir/a" -czf "$dir/a.tgz" .
must --name x "oci-archive:$dir/a.tgz"
same "archive"
python3 "$oci" docker "$dir/a" "$dir/saved.tar"
must --name x "docker-archive:$dir/saved.tar:test/app:v1"
same "docker save"
must --name x "$dir/saved.tar"
same "docker save, found by its content"
refused 'there are: test/app:v1' "docker-archive:$dir/saved.tar:test/other"
ok "archives of OCI and of docker save give the same"
skopeo copy -q "oci:$dir/g:latest" "docker-archive:$dir/skopeo.tar:app:v2" >"$dir/skopeo.log" 2>&1 ||
	fail "skopeo: $(cat "$dir/skopeo.log")"
must --name x "docker-archive:$dir/skopeo.tar:app:v2"
same "skopeo's docker-archive"
ok "so does an archive that skopeo wrote"

while read -r kind sentence; do
	python3 "$oci" evil "$dir/evil-$kind" "$kind"
	refused "$sentence" "oci:$dir/evil-$kind"
	rm -rf "$dir/evil-$kind"
done <<'END'
dotdot has '..' in it
symlink leads through the symlink
lower-symlink symlink of a lower layer
hardlink has '..' in it
nowhere no file of this or a lower layer
whiteout has '..' in it
diff-id does not match its diff_id
flipped layer 1:
longer more bytes than the manifest says
bomb decompression bomb
sparse-bomb larger than 65536 MiB
platform no image for linux/amd64 among: linux/arm64
END
[ ! -e /tmp/favo-evil ] || fail "an image wrote to the host"
ok "hostile and damaged images are refused, each with its sentence"
refused "larger than 1 MiB" --max-size 1M "oci:$dir/a"
ok "--max-size bounds the contents, holes counted"
[ -z "$(ls "$dir/store/tmp")" ] || fail "left in tmp: $(ls "$dir/store/tmp")"
ok "refused imports leave nothing behind"

# ---- Debian's registry

# registry NAME AUTH: docker-registry on $port with that section of its configuration
registry() {
	registry_try=0
	while :; do
		registry_try=$((registry_try + 1))
		port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
		printf 'version: 0.1\nlog: {level: warn}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: "127.0.0.1:%s"}\nauth: %s\n' \
			"$dir/registry" "$port" "$2" >"$dir/$1.yml"
		docker-registry serve "$dir/$1.yml" >"$dir/$1.log" 2>&1 &
		registry_pid=$!
		pids="$pids $registry_pid"
		registry_n=0
		while kill -0 $registry_pid 2>/dev/null && [ $registry_n -lt 100 ]; do
			curl -s -o "$dir/ping" "http://127.0.0.1:$port/v2/" && return
			registry_n=$((registry_n + 1))
			sleep 0.1
		done
		[ $registry_try -lt 3 ] || fail "docker-registry: $(tail -n 3 "$dir/$1.log")"
	done
}

perl -e 'print "alice:", crypt("secret", "\$2b\$05\$abcdefghijklmnopqrstuu"), "\n"' >"$dir/htpasswd"
registry basic "{htpasswd: {realm: test, path: $dir/htpasswd}}"
skopeo copy -q --dest-tls-verify=false --dest-creds alice:secret "oci:$dir/a:latest" \
	"docker://127.0.0.1:$port/team/app:v1" >"$dir/skopeo.log" 2>&1 ||
	fail "skopeo: $(cat "$dir/skopeo.log")"
from=127.0.0.1:$port
refused 'put "machine' "docker://$from/team/app:v1"
printf 'machine %s login alice password wrong\nmachine %s login bob password secret\n' "$from" "$from" >"$dir/credentials"
refused "others can read" "docker://$from/team/app:v1"
chmod 600 "$dir/credentials"
refused "refuses access" "docker://$from/team/app:v1"
refused "no password of eve" "docker://eve@$from/team/app:v1"
ok "no, wrong, foreign and readable passwords are refused"
printf 'machine %s login alice password secret\n' "$from" >"$dir/credentials"
must --name x "docker://alice@$from/team/app:v1"
same "docker-registry"
must "docker://$from/team/app:v1"
"$favo" image show --json app:v1 | jq -e ".source.name == \"$from/team/app:v1\"" >/dev/null ||
	fail "source: $("$favo" image show --json app:v1 | jq -c .source)"
ok "docker-registry with a password gives the tree that umoci unpacks"
digest=$("$favo" image show --json app:v1 | jq -r .source.digest)
must --name x "docker://$from/team/app@$digest"
same "by digest"
refused "has no such image (manifest unknown)" "docker://$from/team/app:v2"
refused "is no name of a repository" "docker://$from/team/App:v2"
ok "an image by digest; no such image; no such name"
rm "$dir/credentials"
mkdir "$dir/home/.docker"
printf '{"auths":{"%s":{"auth":"YWxpY2U6c2VjcmV0"}}}' "$from" >"$dir/home/.docker/config.json"
must --name x "docker://$from/team/app:v1"
same "docker's config.json"
ok "the password may be where docker login put it"
rm -r "$dir/home/.docker"

openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test -keyout "$dir/key.pem" \
	-out "$dir/cert.pem" >"$dir/openssl.log" 2>&1 || fail "openssl: $(cat "$dir/openssl.log")"
openssl x509 -in "$dir/cert.pem" -outform der -out "$dir/cert.der"
python3 "$top/tests/lib/registry.py" token --dir "$dir/token" --key "$dir/key.pem" --cert "$dir/cert.der" \
	2>"$dir/token.log" &
pids="$pids $!"
wait_until "token server" test -f "$dir/token/port"
registry bearer "{token: {realm: \"http://127.0.0.1:$(cat "$dir/token/port")/token\", service: svc, issuer: test, rootcertbundle: $dir/cert.pem}}"
printf 'machine 127.0.0.1:%s login alice password secret\n' "$port" >"$dir/credentials"
chmod 600 "$dir/credentials"
must --name x "docker://127.0.0.1:$port/team/app:v1"
same "token"
grep -q 'service=svc&scope=repository%3Ateam%2Fapp%3Apull auth=Basic' "$dir/token/requests" ||
	fail "token server: $(cat "$dir/token/requests")"
ok "docker-registry with a token server: a token for this repository, pull only"

# ---- registries that misbehave

credentials() {
	printf 'machine 127.0.0.1:%s login alice password secret\n' "$port" >"$dir/credentials"
}

server plain
must --name x "docker://127.0.0.1:$port/a"
same "no authentication"
refused "manifest unknown?" "docker://127.0.0.1:$port/a:none"
ok "no authentication; control characters of the server are not shown"
server bearer --auth bearer --redirect
credentials
must --name x "docker://127.0.0.1:$port/a"
same "redirect"
grep -q '^home .*/manifests/.* auth=Bearer' "$dir/bearer/requests" || fail "no token sent"
grep -q '^elsewhere .*/blobs/' "$dir/bearer/requests" || fail "no redirect followed"
! grep '^elsewhere ' "$dir/bearer/requests" | grep -qv 'auth=- ' || fail "a token left for another host"
ok "the token does not follow a redirect to another host"
server basic2 --auth basic --redirect
credentials
must --name x "docker://127.0.0.1:$port/a"
! grep '^elsewhere ' "$dir/basic2/requests" | grep -qv 'auth=- ' || fail "a password left for another host"
ok "nor does the password"
server cut --cut 100000
must --name x "docker://127.0.0.1:$port/a"
same "cut"
[ "$(grep -c 'range=bytes=100000-' "$dir/cut/requests")" = 1 ] || fail "no resume: $(cat "$dir/cut/requests")"
grep -q 'range=bytes=200000-' "$dir/cut/requests" || fail "no second resume: $(cat "$dir/cut/requests")"
ok "a transfer that breaks off goes on where it was"
server norange --cut 100000 --no-range
must --name x "docker://127.0.0.1:$port/a"
same "without Range"
ok "or from the start, where the server has no Range"
server fail --fail 3
must --name x "docker://127.0.0.1:$port/a"
same "after 503"
ok "a server that is busy is asked again"
server down --fail 1000
refused "given up after 6 tries: 127.0.0.1:$port: HTTP 503" "docker://127.0.0.1:$port/a"
ok "but not for ever"
server lie --lie
refused "neither an image manifest nor an index" "docker://127.0.0.1:$port/a"
refused "content does not match the digest" "docker://127.0.0.1:$port/a@$digest"
ok "other bytes than the digest says are refused"
server tls --tls "$dir/cert.pem" "$dir/key.pem"
FAVO_CONF_REGISTRY_HTTP=elsewhere
refused "certificate" "docker://127.0.0.1:$port/a"
server noauth
refused "no TLS" "docker://127.0.0.1:$port/a"
FAVO_CONF_REGISTRY_HTTP=127.0.0.1
ok "an unknown certificate is refused, and so is a registry without TLS"

# ---- at submission

munged_start
favod_conf
printf 'registry_http = 127.0.0.1\nsite_kernel = %s\nsite_modules = %s\n' "$dir/k/vmlinux" \
	"$dir/k/modules/6.1.0-test" >>"$FAVO_CONF"
unset FAVO_CONF_STORE_DIR FAVO_CONF_REGISTRY_HTTP
favod_start
submit() {
	TMPDIR=$dir/tmp "$build/slurm-plugin/favo-submit" "$@" >"$dir/out" 2>"$dir/err" || :
	grep -v '^busy$' "$dir/out" | tail -n 1
}
mkdir "$dir/tmp"
server job
case $(submit --vm-image="docker://127.0.0.1:$port/a") in
"grant "*) ;;
*) fail "favo-submit: $(cat "$dir/out" "$dir/err")" ;;
esac
me=$(id -un)
"$favo" image ls --json >"$dir/ls"
name=$(jq -r ".images[] | select(.name == \"$me/run/a\") | .name + \":\" + .tag" "$dir/ls")
[ -n "$name" ] || fail "no $me/run/a in $(cat "$dir/ls")"
[ "$("$favo" image show --json "$name" | jq -r '.source.kind + " " + .kernel.source')" = "docker site" ] ||
	fail "$("$favo" image show --json "$name")"
ok "--vm-image=docker://... is imported and pushed, with the kernel of the site"
before=$(grep -c /blobs/ "$dir/job/requests")
case $(submit --vm-image="docker://127.0.0.1:$port/a") in
"grant "*) ;;
*) fail "favo-submit: $(cat "$dir/out" "$dir/err")" ;;
esac
[ "$(grep -c /blobs/ "$dir/job/requests")" = "$before" ] || fail "layers are downloaded again"
ok "the second time only its digest is asked for"
case $(cd "$dir" && submit --vm-image=./g) in
"grant "*) ;;
*) fail "favo-submit: $(cat "$dir/out" "$dir/err")" ;;
esac
case $(submit --vm-image="docker://127.0.0.1:$port/b:none") in
"error --vm-image=docker://127.0.0.1:$port/b:none: "*"no such image"*) ;;
*) fail "favo-submit: $(cat "$dir/out" "$dir/err")" ;;
esac
[ -z "$(ls "$dir/tmp")" ] || fail "left in TMPDIR: $(ls "$dir/tmp")"
ok "--vm-image=./path works, too; an error is one sentence; nothing is left behind"
server stall --stall
TMPDIR=$dir/tmp "$build/slurm-plugin/favo-submit" --vm-image="docker://127.0.0.1:$port/stalled" \
	>"$dir/out" 2>"$dir/err" &
submit_pid=$!
wait_until "download" grep -q /blobs/ "$dir/stall/requests"
[ -n "$(ls "$dir/tmp")" ] || fail "no store in TMPDIR"
kill -TERM $submit_pid
! wait $submit_pid || fail "favo-submit: done after SIGTERM"
[ -z "$(ls "$dir/tmp")" ] || fail "left in TMPDIR: $(ls "$dir/tmp")"
ok "a signal in mid-import ends it, and removes what it made"
