#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Runs in a lab node for t0220-snapshot.t: saves a warm guest and starts others
# from it. Prints TAP lines without plan; figures as comments.
cd /fresh || exit 1
. ./guest.sh
work=$(mktemp -d /scratch/snapshot.XXXXXX)
n=0
check() { # TEXT COMMAND...: what COMMAND prints is shown when it fails
	local text=$1 out
	shift
	n=$((n + 1))
	if out=$("$@" 2>&1); then
		echo "ok $n - $text"
	else
		echo "not ok $n - $text"
		printf '%s\n' "$out" | sed 's/^/# /'
	fi
}

end_all() {
	local pid
	for pid in $(jobs -p) $(cat "$work"/*.pid 2>/dev/null); do kill "$pid" 2>/dev/null; done
	for dev in fst1 fst2 fst3; do ip link del "$dev" 2>/dev/null; done
	rm -rf "$work"
}
trap end_all EXIT

for i in 1 2 3; do
	ip tuntap add dev "fst$i" mode tap vnet_hdr
	ip addr add "10.99.$i.1/24" dev "fst$i"
	ip link set "fst$i" mtu 1450 up
done
guest_root "$work/root.erofs"
truncate -s 8M "$work/base"
warm_initrd "$work/warm.cpio"
for i in 1 2 3; do guest_identity "$i" private >"$work/identity$i"; done

# devices N VHOST: options of guest N; the same ones, in the same order, for all
devices() {
	echo "--jail --rng --console file=$work/console$1 --control path=$work/$1.sock" \
		"--disk path=$work/root.erofs,ro --disk path=$work/base,overlay=$work/overlay$1" \
		"--net tap=fst$1,vhost=$2,mac=02:fa:00:00:00:0$1 --vsock cid=$((100 + $1))" \
		"--events file=$work/events$1"
}

# boot_and_save N VHOST CPUS NAME: a warm guest, saved into NAME.state and .memory
boot_and_save() {
	local pid
	# shellcheck disable=SC2046 # options
	pid=$(timeout 150 ./snapshot-tool warm ./favo-vmm --kernel /guest/vmlinux \
		--initrd base.cpio --initrd "$work/warm.cpio" --mem 160M --cpus "$3" \
		--cmdline "quiet" $(devices "$1" "$2") 2>"$work/err$1") || {
		cat "$work/err$1" "$work/console$1"
		return 1
	}
	echo "$pid" >"$work/$1.pid"
	timeout 60 ./snapshot-tool save "$work/$1.sock" "$work/$4.state" "$work/$4.memory" stop || return
	while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
	rm -f "$work/$1.pid"
	grep -q 'stopped after a snapshot' "$work/events$1"
}

# restore N VHOST NAME [VERIFY]: leaves it running; its time to "ready" is a comment
restore() {
	local ms
	# shellcheck disable=SC2046
	ms=$(timeout 100 ./snapshot-tool ready $((100 + $1)) "$work/identity$1" ./favo-vmm \
		--restore "state=$work/$3.state,memory=$work/$3.memory${4:-}" \
		$(devices "$1" "$2") 2>"$work/err$1") || {
		cat "$work/err$1" "$work/console$1" "$work/events$1"
		return 1
	}
	echo "$ms" >"$work/ms$1"
}

in_guest() { # N COMMAND...
	local i=$1
	shift
	timeout 60 ./snapshot-tool exec "$((100 + i))" "$(guest_secret "$i")" "$@"
}

equal() { [ "$1" = "$2" ] || { echo "\"$1\" is not \"$2\""; false; }; }
differ() { [ -n "$1" ] && [ -n "$2" ] && [ "$1" != "$2" ] || { echo "\"$1\" and \"$2\""; false; }; }
stop() { timeout 20 socat - "UNIX-CONNECT:$work/$1.sock" <<<'{"op":"stop"}' | grep -q '"ok":true'; }

clock_right() { # N: within 2 s, which a node that is busy may take to ask
	local there here
	there=$(in_guest "$1" date +%s) && here=$(date +%s) || return 1
	echo "guest $there, node $here"
	[ $((here - there)) -le 2 ] && [ $((there - here)) -le 2 ]
}

refused() { # WORDS PART: a restore that must fail with these words
	local out
	# shellcheck disable=SC2046
	if out=$(timeout 60 ./favo-vmm --restore "state=$work/bad.state,memory=$work/bad.memory,verify" \
		$(devices 3 auto) 2>&1); then
		echo "it ran"
		return 1
	fi
	echo "$out"
	[[ $out == *"$1"* ]]
}

flip() { # FILE OFFSET
	local byte
	byte=$(dd if="$1" bs=1 skip="$2" count=1 status=none | od -An -tu1)
	# shellcheck disable=SC2059 # an escape is meant
	printf "\\x$(printf %02x $((byte ^ 16)))" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

check "a warm guest is saved and ends" boot_and_save 1 auto 1 one
cp "$work/overlay1" "$work/overlay2"
sleep 3 # so that a clock that stood still shows
check "one guest goes on from the snapshot" restore 1 auto one
check "and a second one while it runs" restore 2 auto one ,verify
echo "# ready after $(cat "$work/ms1" "$work/ms2" | tr '\n' ' ')ms"
check "the first has its host name" equal "$(in_guest 1 hostname)" vm1
check "the second has its own" equal "$(in_guest 2 hostname)" vm2
check "machine ids differ" differ "$(in_guest 1 cat /etc/machine-id)" "$(in_guest 2 cat /etc/machine-id)"
random='head -c 16 /dev/urandom | od -An -tx8'
check "random numbers differ" differ "$(in_guest 1 sh -c "$random")" "$(in_guest 2 sh -c "$random")"
check "the clock of the first is right" clock_right 1
check "the clock of the second is right" clock_right 2
check "the first answers to its address" ping -q -c 5 -i 0.2 -W 5 10.99.1.2
check "the second to its own" ping -q -c 5 -i 0.2 -W 5 10.99.2.2
for i in 1 2; do
	in_guest "$i" sh -c "echo disk of $i | dd of=/dev/vdb bs=512 conv=sync status=none; sync"
done
check "disks of the two are separate" equal \
	"$(in_guest 1 head -c 9 /dev/vdb) $(in_guest 2 head -c 9 /dev/vdb)" "disk of 1 disk of 2"
# Each wrote to its memory, which must not show in the file or in the other.
check "their secrets do not open each other" \
	sh -c "! ./snapshot-tool exec 101 $(guest_secret 2) true 2>/dev/null"
stop 1
stop 2
cp "$work/one.memory" "$work/bad.memory"
cp "$work/one.state" "$work/bad.state"
flip "$work/bad.state" 2000
check "a flipped bit of the state is refused" refused "checksum is wrong"
cp "$work/one.state" "$work/bad.state"
flip "$work/bad.state" 9
check "another format version is refused" refused "format version"
cp "$work/one.state" "$work/bad.state"
flip "$work/bad.memory" 16777300
check "a flipped bit of the memory is refused" refused "memory: checksum is wrong"

check "two vCPUs and no vhost are saved" boot_and_save 3 off 2 two
check "and go on" restore 3 off two
check "with a network" ping -q -c 5 -i 0.2 -W 5 10.99.3.2
check "on both vCPUs" equal "$(in_guest 3 busybox grep -c ^processor /proc/cpuinfo)" 2
stop 3
echo "1..$n"
