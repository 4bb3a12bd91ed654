#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Runs in a lab node for t0200-vmm.t. Prints TAP lines.
cd /fresh || exit 1
work=$(mktemp -d /scratch/vmm.XXXXXX)
trap 'rm -rf "$work"' EXIT
n=0
say() { # STATUS TEXT
	n=$((n + 1))
	echo "$1 $n - $2"
}

# check TEXT COMMAND...: one test
check() {
	local text=$1
	shift
	if "$@" >/dev/null 2>&1; then say ok "$text"; else say "not ok" "$text"; fi
}

# guest NAME KERNEL WORDS OPTION...: in the background
guest() {
	local name=$1 kernel=$2 words=$3
	shift 3
	timeout 60 ./favo-vmm --kernel "/guest/$kernel" --initrd initrd.cpio \
		--serial file="$work/$name" --cmdline "quiet console=ttyS0 $words" \
		--control "$work/$name.sock" --events file="$work/$name.events" --jail "$@" \
		2>"$work/$name.err" &
	job=$!
}

# ended NAME CODE REASON
ended() {
	local code
	wait "$job"
	code=$?
	if [ $code -eq "$2" ] && grep -q "\"exit\",\"reason\":\"$3\"" "$work/$1.events"; then
		say ok "$1: ended as $3 with code $2"
	else
		say "not ok" "$1: code $code, wanted $2 and $3"
		sed 's/^/# /' "$work/$1.events" "$work/$1.err"
		tail -n 20 "$work/$1" | sed 's/^/# /'
	fi
}

said() { # NAME PATTERN
	grep -qE "$2" "$work/$1"
}

waiting() { # NAME PATTERN
	local i
	for i in $(seq 300); do
		said "$1" "$2" && return 0
		kill -0 "$job" 2>/dev/null || return 1
		sleep 0.1
	done
	return 1
}

ask() { # NAME REQUEST
	echo "$2" | socat -t 2 - "unix:$work/$1.sock"
}

echo "1..28"
cat /guest/vmlinux >/dev/null

# An ELF kernel: control socket, and what the jailed process has.
guest elf vmlinux do=hang --mem 256M --rng
check "elf: the guest is up" waiting elf "init: waiting"
check "elf: one vCPU" said elf "init: cpus=1 "
check "elf: clock is kvm-clock" said elf "clocksource=kvm-clock"
check "elf: PCI device found" said elf "init: pci 0000:00:00.0 0x1044"
vmm=$(pgrep -P "$job" favo-vmm || pgrep favo-vmm | head -n 1)
status=/proc/$vmm/status
check "jail: seccomp filter in every thread" \
	test "$(grep -h '^Seccomp:' /proc/"$vmm"/task/*/status | sort -u | tr -d '[:space:]')" = Seccomp:2
check "jail: no capability" test "$(grep -c 'Cap...:.0000000000000000' "$status")" -eq 5
check "jail: no new privileges" grep -q 'NoNewPrivs:.1' "$status"
check "jail: its root is empty" test -z "$(ls -A "/proc/$vmm/root/")"
for ns in user mnt net ipc uts cgroup; do
	[ "$(readlink "/proc/$vmm/ns/$ns")" != "$(readlink "/proc/self/ns/$ns")" ] || break
done
check "jail: own namespaces" test $ns = cgroup -a \
	"$(readlink "/proc/$vmm/ns/cgroup")" != "$(readlink /proc/self/ns/cgroup)"
# Beside the standard streams: KVM, event descriptors, memory, what was given.
other=$(find "/proc/$vmm/fd" -mindepth 1 ! -name '[012]' -printf '%f -> %l\n' |
	grep -vE "pipe:|socket:|anon_inode:|/memfd:favo-guest-ram|/dev/kvm|/dev/u?random|$work/elf")
check "jail: descriptors are those of the machine" test -z "$other"
[ -z "$other" ] || echo "$other" | sed 's/^/# /'
check "control: status" grep -q '"state":"running"' <(ask elf '{"op":"status"}')
check "control: stats" grep -q '"mmio":' <(ask elf '{"op":"stats"}')
ask elf '{"op":"stats"}' | sed 's/^/# /' | cut -c 1-900
check "control: bad request" grep -q '"ok":false' <(ask elf '{"op":"dance"}')
check "control: garbage" grep -q '"ok":false' <(head -c 5000 /dev/zero | tr '\0' x |
	socat -t 2 - "unix:$work/elf.sock")
ask elf '{"op":"stop"}' >/dev/null
ended elf 0 stopped

# A bzImage, two vCPUs, two initrds, accesses to nowhere, power button.
guest bz bzImage "do=poke do=button" --mem 512M --cpus 2 --initrd second.cpio
check "bzImage: pokes at nothing and lives" waiting bz "init: poked"
check "bzImage: two vCPUs, both initrds" said bz "init: cpus=2 .*initrd=two"
check "bzImage: forbidden and unknown accesses are counted" \
	grep -qE '"unknown_reads":[1-9]' <(ask bz '{"op":"stats"}')
check "button: the guest waits" waiting bz "init: waiting"
ask bz '{"op":"powerbutton"}' >/dev/null
check "button: the guest sees it" waiting bz "init: button"
ended bz 0 shutdown

# More than 4 GiB, reset.
guest big vmlinux do=reset --mem 5G --cpus 2
check "5 GiB: the guest is up" waiting big "init: cpus=2"
mb=$(sed -n 's/.*mem_mb=\([0-9]*\).*/\1/p' "$work/big")
check "5 GiB: the guest sees them ($mb MiB)" test "${mb:-0}" -gt 4700
ended big 10 reset

guest panic vmlinux do=panic --mem 256M
ended panic 11 panic

guest term vmlinux do=hang --mem 256M
for i in $(seq 100); do
	grep -q start "$work/term.events" 2>/dev/null && break
	sleep 0.1
done
pkill -TERM -P "$job" favo-vmm || kill "$job"
ended term 0 stopped

# What cannot start says why, in one sentence.
head -c 100000 /guest/vmlinux >"$work/short"
./favo-vmm --kernel "$work/short" 2>"$work/err"
check "cut kernel: refused with one sentence" test $? -eq 12 -a "$(wc -l <"$work/err")" -eq 1
./favo-vmm --kernel /guest/vmlinux --mem 16M 2>"$work/err"
check "kernel larger than memory: refused with one sentence" \
	test $? -eq 12 -a "$(wc -l <"$work/err")" -eq 1
