#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Runs in a lab node for t0310-memory.t. Prints TAP lines, the plan last.
cd /fresh || exit 1
work=$(mktemp -d /scratch/memory.XXXXXX)
trap 'rm -rf "$work"' EXIT
n=0
point() { # TEXT COMMAND...
	local text=$1
	shift
	n=$((n + 1))
	if "$@"; then echo "ok $n - $text"; else echo "not ok $n - $text"; fi
}
field() { sed -n "s/.*\"$2\": \\([0-9.-]*\\).*/\\1/p" "$work/$1"; }
up() { [ "$(field "$1" pid)" -gt 0 ] 2>/dev/null; }
ram() { ./memory-host -p "$1" | sed -n 's/.*"ram_kb": \([0-9]*\).*/\1/p'; } # PID
end() { # NAME
	local pid
	pid=$(field "$1" pid)
	kill -9 "$pid" 2>/dev/null
	for _ in $(seq 100); do [ -d "/proc/$pid" ] || break; sleep 0.1; done
}
vmm() { # NAME CID WORDS OPTION...
	local name=$1 cid=$2 words=$3
	shift 3
	./memory-host -t 200 "$cid" ./favo-vmm --kernel /guest/vmlinux --initrd initrd.cpio --mem 256M \
		--cmdline "quiet panic=-1 $words" --vsock cid=@CID@ --jail "$@" \
		>"$work/$name" 2>"$work/$name.err"
	sed "s/^/# $name: /" "$work/$name" "$work/$name.err"
}
dax="dev=/dev/pmem0 opts=dax=always"

vmm disk 10 "dev=/dev/vda" --disk path=root.erofs,ro
point "a guest reads the image from a disk" up disk
end disk
vmm first 11 "$dax" --pmem path=root.erofs
point "a guest reads the image as persistent memory" up first
vmm second 12 "$dax" --pmem path=root.erofs
point "and so does a second one" up second
point "what they read is not in their RAM" \
	[ $(($(field second ram_kb) + 32 * 1024)) -lt "$(field disk ram_kb)" ]
point "the hypervisor itself takes less than 6 MiB" [ "$(field second own_kb)" -lt 6144 ]
end first
end second

vmm eater 13 "$dax eat=128" --pmem path=root.erofs --balloon
pid=$(field eater pid)
# It took 128 MiB more than the first guest, and keeps no more than that one.
returned() {
	for _ in $(seq 300); do
		[ "$(ram "$pid")" -gt $(($(field first ram_kb) + 32 * 1024)) ] || return 0
		sleep 0.1
	done
	return 1
}
point "memory that a guest frees goes back to the host" returned
echo "# resident guest RAM: $(field eater ram_kb) KiB, then $(ram "$pid") KiB"
end eater

cp root.erofs "$work/cut.erofs"
size=$(stat -c %s "$work/cut.erofs")
timeout 200 ./favo-vmm --kernel /guest/vmlinux --initrd initrd.cpio --mem 256M --jail \
	--cmdline "quiet panic=-1 $dax" --pmem path="$work/cut.erofs" \
	--events file="$work/events" --vsock cid=14 2>"$work/cut.err" &
vmm_pid=$!
for _ in $(seq 100); do grep -q '"start"' "$work/events" 2>/dev/null && break; sleep 0.1; done
truncate -s $((size / 2)) "$work/cut.erofs"
wait $vmm_pid
code=$?
sed 's/^/# /' "$work/cut.err" "$work/events"
point "a page of the image that cannot be read ends the VM with code 12" [ $code = 12 ]
point "and is named" grep -q "image .*cut.erofs cannot be read at byte" "$work/cut.err"
echo "1..$n"
