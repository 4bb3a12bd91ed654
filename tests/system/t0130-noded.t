#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# favo-noded as a program, with a real favod and munged and without VMs: who
# may ask what, bad input, one fetch for two jobs, grants that do not hold,
# kill -9 at any moment, another boot, floods. Afterwards nothing is left.
set -eu
. "$(dirname "$0")/../lib/build.sh"
build=${FAVO_BUILD:-$build_root/gcc}
[ -n "${FAVO_BUILD:-}" ] || build_in gcc --enable-werror CC=gcc
. "$top/tests/lib/favod.sh"

[ "$(id -u)" = 0 ] || { echo "1..0 # SKIP favo-noded needs root"; exit 0; }
tool=$build/tests/unit/noded-tool
sock=$favod_dir/run/noded.sock
noded_pid=
chmod 755 "$favod_dir"

noded_start() {
	"$build/provision/noded/favo-noded" --config "$FAVO_CONF" 2>>"$favod_dir/noded.log" &
	noded_pid=$!
	favod_pids="${favod_pids:-} $noded_pid"
	wait_until "favo-noded" "$tool" ask "$sock" '{"op":"list"}'
}
noded_kill() {
	kill -9 "$noded_pid"
	wait "$noded_pid" 2>/dev/null || true
}
noded_cleanup() {
	[ -z "$noded_pid" ] || kill -9 "$noded_pid" 2>/dev/null || true
	favod_cleanup
}
trap noded_cleanup EXIT

ask() { "$tool" ask "$sock" "$1"; }
grant() { "$tool" grant "$favod_dir/grant.key" "$@"; }
# prepare JOB GRANT [UID [RESTART]]
prepare() {
	ask "{\"op\":\"prepare\",\"job\":$1,\"restart\":${4:-0},\"uid\":${3:-1000},\"gid\":1000,\"nodelist\":\"localhost\",\"node\":\"localhost\",\"grant\":\"$2\"}"
}
destroy() { ask "{\"op\":\"destroy\",\"job\":$1}"; }
says() { ask "{\"op\":\"show\",\"job\":$1}" 2>/dev/null | grep -q -- "$2"; }
# nothing_left WHAT
nothing_left() {
	left=$(ls -A "$favod_dir/run/job" "$favod_dir/run/vm" "$favod_dir/state/vm" | grep -v ':$' | grep . || true)
	left=$left$(find "$favod_dir/state/cache" -name 'pin.*')
	left=$left$(find /sys/fs/cgroup -maxdepth 5 -path '*slurm_localhost*' -name 'job_*')
	[ -z "$left" ] || fail "$1: left: $left"
	ok "$1"
}

munged_start
favod_conf
plan 21

# ---- an image, small but of many chunks ----------------------------------
tree=$favod_dir/tree
mkdir -p "$tree/bin" "$tree/etc" "$tree/proc" "$tree/sys" "$tree/dev" "$tree/tmp" "$tree/run" "$favod_dir/modules"
printf 'ID=test\n' >"$tree/etc/os-release"
cp /bin/true "$tree/bin/sh"
head -c 24000000 /dev/urandom >"$tree/data"
gcc -DPANIC -nostdlib -static -no-pie -Wl,-Ttext-segment=0x100000 -Wl,-z,max-page-size=4096 \
	-Wl,--build-id=none -o "$favod_dir/kernel" "$top/tests/system/payload.S" 2>"$favod_dir/out" ||
	fail "payload: $(cat "$favod_dir/out")"
: >"$favod_dir/modules/modules.dep"
for module in virtio/virtio_pci block/virtio_blk vsock/vmw_vsock_virtio_transport fs/erofs fs/overlay; do
	echo "kernel/$module.ko"
done >"$favod_dir/modules/modules.builtin"
"$build/provision/cli/favo" image import "$tree" --name test --kernel "$favod_dir/kernel" \
	--modules "$favod_dir/modules" --quiet >"$favod_dir/id" 2>"$favod_dir/out" ||
	fail "import: $(cat "$favod_dir/out")"
digest=$(cat "$favod_dir/id")
favod_start

# ---- start -----------------------------------------------------------------
echo 'no_such_key = 1' >"$favod_dir/bad.conf"
if "$build/provision/noded/favo-noded" --config "$favod_dir/bad.conf" 2>"$favod_dir/out"; then
	fail "an unknown key is taken"
fi
grep -q 'bad.conf:1: ' "$favod_dir/out" || fail "no file and line: $(cat "$favod_dir/out")"
ok "a wrong configuration is named with file and line"
"$build/provision/noded/favo-noded" --config "$FAVO_CONF" --check >"$favod_dir/out" 2>&1 || true
grep -q 'vmm_path\|a virtual machine could start' "$favod_dir/out" ||
	fail "--check: $(cat "$favod_dir/out")"
ok "--check says what is missing"
noded_start
[ "$(stat -c %a "$sock") $(stat -c %a "$favod_dir/run/job")" = "666 755" ] || fail "modes"
ok "the socket is open to all, the folder of jobs to root"
if "$build/provision/noded/favo-noded" --config "$FAVO_CONF" 2>"$favod_dir/out"; then
	fail "a second daemon starts"
fi
grep -q 'another favo-noded runs' "$favod_dir/out" || fail "second daemon: $(cat "$favod_dir/out")"
ok "a second daemon is refused"

# ---- who may ask -------------------------------------------------------------
for op in prepare boot destroy; do
	line="{\"op\":\"$op\",\"job\":1,\"uid\":0,\"gid\":0,\"nodelist\":\"a\",\"node\":\"a\",\"grant\":\"g\"}"
	if setpriv --reuid 65534 --regid 65534 --clear-groups "$tool" ask "$sock" "$line" >"$favod_dir/out"; then
		fail "$op by a user"
	fi
	grep -q 'only root may ask this' "$favod_dir/out" || fail "$op: $(cat "$favod_dir/out")"
done
ok "users cannot prepare, boot or destroy"
for line in '' 'x' '{' '{"op":"list","op":"list"}' '{"op":"show","job":-1}' '{"op":"show"}' \
	"{\"op\":\"$(head -c 70000 /dev/zero | tr '\0' a)\"}"; do
	if ask "$line" >"$favod_dir/out" 2>&1; then fail "taken: $line"; fi
done
ask '{"op":"list"}' >"$favod_dir/out" || fail "list after bad input"
ok "bad input is refused, and the daemon lives"

# ---- grants ----------------------------------------------------------------------
good=$(grant 1000 1000 alice "$digest")
prepare 11 "$good" 1001 >/dev/null
prepare 12 "$(grant 1000 1000 alice "$digest" -5)" >/dev/null
prepare 13 "${good}x" >/dev/null
prepare 14 '' >/dev/null
wait_until "refusal of job 11" says 11 'it is for user 1000'
wait_until "refusal of job 12" says 12 'submit the job again'
wait_until "refusal of job 13" says 13 '"state":"failed"'
wait_until "refusal of job 14" says 14 '"state":"failed"'
ok "grants of others, of yesterday and broken ones start nothing"
if ask '{"op":"attach","job":12,"step":"0","task":0}' >"$favod_dir/out"; then fail "attach"; fi
grep -q '"node":"localhost","vm":"vm0"' "$favod_dir/out" || fail "attach: $(cat "$favod_dir/out")"
ok "attach tells node, VM, cause and remedy"
setpriv --reuid 65534 --regid 65534 --clear-groups "$tool" ask "$sock" '{"op":"show","job":12}' \
	>"$favod_dir/out" && fail "a stranger sees the job"
grep -q 'has no VM on this node' "$favod_dir/out" || fail "stranger: $(cat "$favod_dir/out")"
ok "to a stranger the job does not exist"
for job in 11 12 13 14 99; do destroy $job >/dev/null || fail "destroy $job"; done
nothing_left "destroy is idempotent and leaves nothing"

# ---- images --------------------------------------------------------------------------
prepare 21 "$good" >/dev/null
prepare 22 "$good" >/dev/null
wait_until "image of job 21" says 21 image_ms
wait_until "image of job 22" says 22 image_ms
[ "$(find "$favod_dir/state/cache" -name 'pin.*' | wc -l)" = 2 ] || fail "pins"
ok "two jobs get one image"
prepare 21 "$good" 1000 1 >/dev/null
wait_until "requeued job" says 21 image_ms
ok "a requeued job starts anew"
destroy 21 >/dev/null
destroy 22 >/dev/null
nothing_left "pins go with the jobs"
prepare 23 "$(grant 1000 1000 alice "sha256:$(printf x | sha256sum | cut -c1-64)")" >/dev/null
wait_until "failure of job 23" says 23 'favod answers 404'
destroy 23 >/dev/null
ok "an image that is gone fails the job"

# ---- kill -9 -----------------------------------------------------------------------------
rm -rf "$favod_dir/state/cache/images/"*
prepare 31 "$good" >/dev/null
prepare 32 "$good" >/dev/null
for pause in 0 0.01 0.03 0.05 0.08 0.1 0.15 0.2 0.3; do
	sleep $pause
	noded_kill
	noded_start
done
wait_until "image after nine crashes" says 31 image_ms
wait_until "image after nine crashes" says 32 image_ms
ok "a job goes on after kill -9 at any moment of its preparation"
noded_kill
: >"$favod_dir/run/job/31.ended"
: >"$favod_dir/run/job/77.ended"
mkdir "$favod_dir/state/vm/55.0" "$favod_dir/run/vm/56.1"
printf '{"format":1' >"$favod_dir/run/job/57"
noded_start
wait_until "clean-up of job 31" test ! -e "$favod_dir/run/job/31"
says 32 image_ms || fail "job 32 is lost"
ok "jobs that ended meanwhile are removed, others stay"
prepare 34 "$good" >/dev/null
wait_until "image of job 34" says 34 image_ms
: >"$favod_dir/run/job/34.ended"
: >"$favod_dir/run/job/78.ended"
wait_until "clean-up of job 34" test ! -e "$favod_dir/run/job/34"
ok "a mark that comes when the daemon has looked for them counts, too"
destroy 32 >/dev/null
nothing_left "remains that belong to no job are removed"
prepare 33 "$good" >/dev/null
wait_until "image of job 33" says 33 image_ms
noded_kill
echo other >"$favod_dir/run/boot_id"
noded_start
sleep 0.3
nothing_left "another boot makes everything stale"

# ---- floods ---------------------------------------------------------------------------------
setpriv --reuid 65534 --regid 65534 --clear-groups "$tool" flood "$sock" 1000 >"$favod_dir/flood" &
flood_pid=$!
wait_until "flood" grep -q connected "$favod_dir/flood"
ask '{"op":"list"}' >/dev/null || fail "list during a flood"
kill $flood_pid
wait $flood_pid 2>/dev/null || true
ok "a user with a thousand silent connections delays nobody"
kill "$noded_pid"
wait "$noded_pid" || fail "it does not end well"
noded_pid=
if grep -q 'Sanitizer\|runtime error' "$favod_dir/noded.log"; then fail "$(grep -m3 'Sanitizer\|runtime error' "$favod_dir/noded.log")"; fi
ok "SIGTERM ends it"
