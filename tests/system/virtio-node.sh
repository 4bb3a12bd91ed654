#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Runs in a lab node for t0300-virtio.t: boots guests that try each device, and
# plays the host's part. Prints TAP lines without plan; figures as comments.
cd /fresh || exit 1
work=$(mktemp -d /scratch/virtio.XXXXXX)
trap 'ip link del fvtap0 2>/dev/null; rm -rf "$work"' EXIT
n=0
say() { # STATUS TEXT
	n=$((n + 1))
	echo "$1 $n - $2"
}

# guest NAME "WORDS" OPTION...: in the background; its console is $work/NAME
guest() {
	local name=$1 words=$2
	shift 2
	timeout 110 ./favo-vmm --kernel /guest/vmlinux --initrd initrd.cpio --mem 128M \
		--cmdline "quiet panic=-1 $words" --console file="$work/$name" \
		--control path="$work/$name.sock" "$@" 2>"$work/$name.err" &
	pid=$!
}

# What the guest said becomes our result.
report() { # NAME
	local name=$1 code
	wait "$pid"
	code=$?
	while read -r word rest; do
		case $word in
		ok) say ok "$name: $rest" ;;
		FAIL) say "not ok" "$name: $rest" ;;
		figure | up | info) echo "# $name: $word $rest" ;;
		esac
	done < <(tr -d '\r' <"$work/$name")
	if [ $code -eq 0 ] && grep -q '^done' "$work/$name"; then
		say ok "$name: guest ended by itself"
	else
		say "not ok" "$name: exit code $code"
		sed 's/^/# /' "$work/$name.err" "$work/$name"
	fi
}

ready() { # NAME WORD
	for _ in $(seq 300); do
		grep -q "^ready $2" "$work/$1" 2>/dev/null && return 0
		kill -0 "$pid" 2>/dev/null || return 1
		sleep 0.1
	done
	return 1
}

truncate -s 64M "$work/disk"
truncate -s 8M "$work/base"
printf 'favo read-only disk' >"$work/ro"
truncate -s 1M "$work/ro"
printf base | dd of="$work/base" bs=1 seek=16384 conv=notrunc status=none
sum=$(sha256sum <"$work/base")

ip tuntap add dev fvtap0 mode tap vnet_hdr
ip addr add 10.99.0.1/24 dev fvtap0
ip link set fvtap0 mtu 1450 up

# The host's part of a guest's network test.
net_client() { # NAME
	local out
	ready "$1" net || return
	if out=$(ping -q -c 20 -i 0.01 -W 2 10.99.0.2); then
		say ok "$1: ping"
		echo "# $1: $(echo "$out" | tail -1)"
	else
		say "not ok" "$1: ping"
	fi
	if timeout 30 ./virtio-init client 10.99.0.2; then
		say ok "$1: 4 MiB over TCP"
	else
		say "not ok" "$1: 4 MiB over TCP"
	fi
}

net=tap=fvtap0,mac=02:fa:00:01:00:02
guest first "do-disk do-ro do-cow=1 do-rng do-net" --rng --net "$net,vhost=off" \
	--disk "path=$work/disk,id=favo-disk-0" --disk "path=$work/ro,ro" \
	--disk "path=$work/base,overlay=$work/overlay"
net_client first
report first

fs=
if [ -x ./virtiofsd ]; then
	mkdir "$work/shared"
	echo "hello guest" >"$work/shared/from-host"
	LD_LIBRARY_PATH=./lib ./virtiofsd --socket-path="$work/fs.sock" \
		-o source="$work/shared" -o cache=none >"$work/fs.log" 2>&1 &
	for _ in $(seq 50); do [ -S "$work/fs.sock" ] || sleep 0.1; done
	fs="--fs socket=$work/fs.sock,tag=shared"
fi
# shellcheck disable=SC2086 # no word or two
guest second "${fs:+do-fs} do-disk do-ro do-cow=2 do-net do-vsock" $fs \
	--net "$net" --vsock cid=77 --jail \
	--disk "path=$work/disk,id=favo-disk-0,io=sync" --disk "path=$work/ro,ro,io=sync" \
	--disk "path=$work/base,overlay=$work/overlay,io=sync"
net_client second
if ready second vsock; then
	if timeout 30 ./virtio-init client 77; then
		say ok "second: 4 MiB over vsock"
	else
		say "not ok" "second: 4 MiB over vsock"
	fi
fi
report second

# The other model of network card, with the stock driver of the same kernel.
guest vmxnet3 do-net --net "$net,model=vmxnet3" --jail
net_client vmxnet3
report vmxnet3

if [ -n "$fs" ]; then
	if [ "$(cat "$work/shared/from-guest")" = "hello host" ]; then
		say ok "the host has the guest's file"
	else
		say "not ok" "the host has the guest's file"
		sed 's/^/# /' "$work/fs.log"
	fi
fi
if [ "$(sha256sum <"$work/base")" = "$sum" ]; then
	say ok "the base of the overlay was never written"
else
	say "not ok" "the base of the overlay was never written"
fi
echo "1..$n"
