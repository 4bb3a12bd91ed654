#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Nodes that fetch an image together, natively, each in a network namespace:
# one killed, one that lies, then real daemons that find each other by favod.
# limit: 300
set -eu
. "$(dirname "$0")/../lib/build.sh"
build=${FAVO_BUILD:-$build_root/gcc}
[ -n "${FAVO_BUILD:-}" ] || build_in gcc --enable-werror CC=gcc
. "$top/tests/lib/favod.sh"
. "$top/tests/lib/swarmnet.sh"

[ "$(id -u)" = 0 ] || { echo "1..0 # SKIP network namespaces need root"; exit 0; }
tool=$build/tests/unit/peer-tool
noded_tool=$build/tests/unit/noded-tool
# Some hosts build tests on demand only.
make -s -C "$build/tests/unit" peer-tool noded-tool >/dev/null
dir=$favod_dir
chmod 755 "$dir"
swarm_cleanup() {
	net_remove
	favod_cleanup
}
trap swarm_cleanup EXIT
# until_true WHAT SECONDS COMMAND...
until_true() {
	until_what=$1 until_n=$(($2 * 10))
	shift 2
	until "$@" >/dev/null 2>&1; do
		until_n=$((until_n - 1))
		[ "$until_n" -gt 0 ] || fail "$until_what: $(tail -n 3 "$dir"/*.out 2>/dev/null | tail -c 700)"
		sleep 0.1
	done
}

munged_start
plan 8
ip netns add "$net_id-try" 2>/dev/null && ip netns del "$net_id-try" ||
	{ echo "1..0 # SKIP no network namespaces here"; exit 0; }
net_make 5 80mbit

# ---- the exchange alone --------------------------------------------------------
head -c 12000000 /dev/urandom >"$dir/file"
id=$("$tool" make "$dir/pstore" "$dir/file")
start_source() {
	(net_run 0 "$tool" source "$dir/pstore" "$id" 7413 >"$dir/source.out" 2>&1) &
	until_true "source" 20 grep -q ready "$dir/source.out"
}
# start_node N [OPTION]
start_node() {
	# shellcheck disable=SC2046
	(net_run "$1" "$tool" node "$dir/cache.$1" "$dir/pstore" "$id" "n$1" 7412 ${2:-} \
		$(swarm_neighbours "$1" 5) >"$dir/n$1.out" 2>&1) &
	eval "node_$1=$!"
}
has_begun() { find "$dir/cache.$1" -name have -size +0 | grep -q .; }
same() { cmp -s "$dir/file" "$dir/cache.$1"/images/*[0-9a-f]/root.img; }
start_source
for i in 1 2 3 4 5; do start_node $i; done
until_true "node 3 begins" 30 has_begun 3
# shellcheck disable=SC2154 # set by eval
kill -9 "$node_3"
for i in 1 2 4 5; do
	until_true "node $i" 60 grep -q '^done' "$dir/n$i.out"
	same $i || fail "node $i has something else"
done
ok "four nodes get the image although the fifth is killed"
[ "$(awk '/^done/ && $4 > 0' "$dir"/n[1245].out | wc -l)" = 4 ] ||
	fail "not all got parts from others: $(grep -h ^done "$dir"/n?.out)"
ok "each got parts of it from other nodes"
bytes=$(awk '/^done/ {sum += $6} END {print sum + 0}' "$dir"/n[1245].out)
[ "$bytes" -lt 24000000 ] || fail "the source gave $bytes bytes for an image of 12000000"
ok "the source gave less than two copies"
start_node 3
until_true "node 3 again" 60 grep -q '^done' "$dir/n3.out"
same 3 || fail "node 3 has something else"
ok "the killed one goes on where it was"
for pid in $(ip netns pids "$net_id-0"; for i in 1 2 3 4 5; do ip netns pids "$net_id-$i"; done); do
	kill -9 "$pid" 2>/dev/null || true
done
rm -rf "$dir"/cache.* "$dir"/n?.out "$dir/source.out"

start_source
start_node 2 --lie
until_true "the liar" 60 grep -q '^done' "$dir/n2.out"
for i in 1 3 4 5; do start_node $i; done
for i in 1 3 4 5; do
	until_true "node $i" 60 grep -q '^done' "$dir/n$i.out"
	same $i || fail "node $i has something else"
done
ok "wrong bytes reach no image"
grep -h 'node n2 .*dropped' "$dir"/n[1345].out | grep -q 10.77.0.12 ||
	fail "nobody names the liar: $(cat "$dir"/n[1345].out)"
ok "the log names who lied"
net_remove

# ---- daemons ---------------------------------------------------------------------
net_make 3 200mbit
tree=$dir/tree
mkdir -p "$tree/bin" "$tree/etc" "$tree/proc" "$tree/sys" "$tree/dev" "$tree/tmp" "$tree/run" "$dir/modules"
printf 'ID=test\n' >"$tree/etc/os-release"
cp /bin/true "$tree/bin/sh"
head -c 24000000 /dev/urandom >"$tree/data"
gcc -DPANIC -nostdlib -static -no-pie -Wl,-Ttext-segment=0x100000 -Wl,-z,max-page-size=4096 \
	-Wl,--build-id=none -o "$dir/kernel" "$top/tests/system/payload.S" 2>"$dir/out" ||
	fail "payload: $(cat "$dir/out")"
: >"$dir/modules/modules.dep"
for module in virtio/virtio_pci block/virtio_blk vsock/vmw_vsock_virtio_transport fs/erofs fs/overlay; do
	echo "kernel/$module.ko"
done >"$dir/modules/modules.builtin"
# conf N: the site's file, with folders of node N (0: favod)
conf() {
	mkdir -p "$dir/s$1"
	cat >"$dir/s$1/favo.conf" <<-END
		favod_url = http://10.77.0.1:7411
		favod_listen = 0.0.0.0:7411
		munge_socket = $dir/m/sock
		state_dir = $dir/s$1/state
		run_dir = $dir/s$1/run
		noded_socket = $dir/s$1/run/noded.sock
		store_dir = $dir/s0/state/store
		grant_key = $dir/grant.key
		grant_pub = $dir/grant.pub
		image_key = $dir/image.key
		image_pub = $dir/image.pub
		log_level = debug
	END
}
for i in 0 1 2 3; do conf $i; done
FAVO_CONF=$dir/s0/favo.conf "$build/provision/cli/favo" image import "$tree" --name test \
	--kernel "$dir/kernel" --modules "$dir/modules" --quiet >"$dir/id" 2>"$dir/out" ||
	fail "import: $(cat "$dir/out")"
(net_run 0 "$build/provision/favod/favod" --config "$dir/s0/favo.conf" >"$dir/favod.out" 2>&1) &
until_true favod 20 grep -q 'serves on' "$dir/favod.out"
for i in 1 2 3; do
	(net_run $i unshare --uts sh -c "hostname n$i && exec '$build/provision/noded/favo-noded' --config '$dir/s$i/favo.conf'" \
		>"$dir/noded$i.out" 2>&1) &
	until_true "favo-noded $i" 20 "$noded_tool" ask "$dir/s$i/run/noded.sock" '{"op":"list"}'
done
grant=$("$noded_tool" grant "$dir/grant.key" 1000 1000 alice "$(cat "$dir/id")")
for i in 1 2 3; do
	"$noded_tool" ask "$dir/s$i/run/noded.sock" \
		"{\"op\":\"prepare\",\"job\":5,\"restart\":0,\"uid\":1000,\"gid\":1000,\"nodelist\":\"localhost\",\"node\":\"localhost\",\"grant\":\"$grant\"}" >/dev/null
done
has_image() { "$noded_tool" ask "$dir/s$1/run/noded.sock" '{"op":"show","job":5}' | grep -q image_ms; }
for i in 1 2 3; do until_true "image on node $i" 60 has_image $i; done
ok "three daemons have the image"
grep -h 'came from other nodes' "$dir"/noded?.out | sed 's/^/# /'
[ "$(grep -l '[1-9][0-9.]* [KM]iB came from other nodes' "$dir"/noded?.out | wc -l)" -ge 2 ] ||
	fail "they did not help each other: $(grep -h 'came from' "$dir"/noded?.out)"
ok "they gave parts of it to each other"
for i in 1 2 3; do
	"$noded_tool" ask "$dir/s$i/run/noded.sock" '{"op":"destroy","job":5}' >/dev/null || true
done
