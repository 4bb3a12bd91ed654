#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Process 1 of a lab's own process, mount, network, UTS and IPC namespaces: the
# login and controller host, and the place where the nodes' QEMU processes run.
# When it ends, the kernel ends everything in it, so a lab cannot leave anything
# behind. Started by "lab up"; everything it mounts is seen only in here.
#   host.sh NODES
set -eu
nodes=$1
# Of what the caller had open only the lock of the lab directory is ours.
for fd in /proc/$$/fd/*; do
	fd=${fd##*/}
	[ "$fd" -le 2 ] || [ "$fd" = 8 ] || [ "$fd" = 255 ] || eval "exec $fd>&-"
done
# Still the outer /proc: the id under which the outer machine knows us.
read -r outer_pid _ </proc/self/stat
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
LAB_VERBOSE=0
proc_record "$LAB/run/host.pid" "$outer_pid"

trap 'stop=1' TERM INT HUP
stop=

mounts() {
	local dir
	mount -t proc proc /proc
	# Lab and tree stay reachable under names that no mount below can hide.
	mount -t tmpfs -o mode=755 tmpfs /mnt
	mkdir /mnt/lab /mnt/src /mnt/over
	mount --bind "$LAB" /mnt/lab
	mount --bind "$TOP" /mnt/src
	for dir in etc var opt; do
		mkdir -p "/mnt/over/$dir/upper" "/mnt/over/$dir/work"
		mount -t overlay -o "lowerdir=/$dir,upperdir=/mnt/over/$dir/upper,workdir=/mnt/over/$dir/work" \
			"lab-$dir" "/$dir"
	done
	mount -t tmpfs -o mode=755 tmpfs /run
	mount -t tmpfs -o mode=1777 tmpfs /tmp
	mount --bind /mnt/lab/home /home
	mkdir -p /run/munge /run/favo /var/lib/favo /var/log/favo /var/log/slurm /opt/favo /opt/favo-demo
	mount --bind /mnt/lab/favod /var/lib/favo
	mkdir -p /mnt/lab/logs/ctl/slurm /mnt/lab/logs/ctl/favo
	mount --bind /mnt/lab/logs/ctl/slurm /var/log/slurm
	mount --bind /mnt/lab/logs/ctl/favo /var/log/favo
	[ ! -d /mnt/lab/install/opt/favo ] || mount --bind /mnt/lab/install/opt/favo /opt/favo
	LAB=/mnt/lab
	TOP=/mnt/src
	export FAVO_LAB_DIR=$LAB
	cd /
}

users() {
	local file
	for file in passwd group; do
		grep -vE '^(alice|bob):|^[^:]*:[^:]*:(1000|1001):' "/etc/$file" >"/etc/$file.lab" || :
	done
	printf 'alice:x:1000:1000:Alice:/home/alice:/bin/bash\n' >>/etc/passwd.lab
	printf 'bob:x:1001:1001:Bob:/home/bob:/bin/bash\n' >>/etc/passwd.lab
	printf 'alice:x:1000:\nbob:x:1001:\n' >>/etc/group.lab
	mv /etc/passwd.lab /etc/passwd
	mv /etc/group.lab /etc/group
	cp -a /mnt/lab/ctl/etc/. /etc/
	cp -p /mnt/lab/keys/grant.key /etc/favo/grant.key
	chown slurm:slurm /var/log/slurm
	mkdir -p /var/lib/slurm/slurmctld
	find /var/lib/slurm/slurmctld -mindepth 1 -delete
	chown slurm:slurm /var/lib/slurm/slurmctld
}

network() {
	local i
	ip link set lo up
	ip link add lab0 type bridge
	ip address add "$LAB_NET.1/24" dev lab0
	ip link set lab0 up
	for ((i = 1; i <= nodes; i++)); do
		ip tuntap add "tap-n$i" mode tap
		ip link set "tap-n$i" master lab0 up
	done
	for ((i = 1; i <= ${LAB_BARE:-0}; i++)); do
		ip tuntap add "tap-b$i" mode tap
		ip link set "tap-b$i" master lab0 up
	done
}

# Keeps one program running; the log has its output.
keep() {
	local name=$1 start
	shift
	while [ -z "$stop" ]; do
		start=$SECONDS
		"$@" >>"$LAB/logs/ctl/$name.out" 2>&1 </dev/null &
		child=$!
		while step_running $child && [ -z "$stop" ]; do wait $child || :; done
		[ -z "$stop" ] || { kill $child 2>/dev/null || :; wait $child || :; return 0; }
		[ $((SECONDS - start)) -ge 2 ] || sleep 1
	done
}

# A node starts again when it reboots or panics, unless it was switched off
# with "lab node NAME off".
node() {
	local name=$1 number=${1#n}
	while [ -z "$stop" ]; do
		if [ -e "$LAB/run/$name.off" ]; then sleep 0.2; continue; fi
		machine_args "$name" "$LAB/run/$name.initrd" "$NODE_VCPUS" "$NODE_MEM"
		[ ! -s "$LAB/run/favo.erofs" ] || machine_disk favo "$LAB/run/favo.erofs" ro
		machine_disk scratch "$LAB/scratch/$name.ext4" rw
		machine_share log "$LAB/logs/$name"
		machine_share home "$LAB/home"
		machine+=(-netdev "tap,id=lab,ifname=tap-$name,script=no,downscript=no,vhost=off"
			-device "virtio-net-pci,netdev=lab,mac=52:54:00:77:00:$(printf %02x "$number"),romfile=,disable-legacy=on")
		"${machine[@]}" >>"$LAB/logs/$name.qemu" 2>&1 </dev/null &
		child=$!
		while step_running $child && [ -z "$stop" ]; do wait $child || :; done
	done
}

# A bare machine has a network card, perhaps a disk, and nothing to boot from. Its
# firmware is BIOS with iPXE in the card, or UEFI when $LAB/run/NAME.uefi is there.
bare() {
	local name=$1
	while [ -z "$stop" ]; do
		if [ -e "$LAB/run/$name.off" ]; then sleep 0.2; continue; fi
		bare_args "$name" "$BARE_MEM"
		"${machine[@]}" >>"$LAB/logs/$name.qemu" 2>&1 </dev/null &
		child=$!
		while step_running $child && [ -z "$stop" ]; do wait $child || :; done
	done
}

mounts
. "$TOP/tests/lab/machine.sh"
. "$TOP/tests/lab/conf.sh"
ASSETS=$LAB/assets
hostname ctl
users
network
for ((i = 1; i <= nodes; i++)); do node "n$i" 8>&- & done
for ((i = 1; i <= ${LAB_BARE:-0}; i++)); do bare "b$i" 8>&- & done
# munged forks when its socket is ready; slurmctld needs it at once.
munged --key-file=/etc/munge/munge.key --log-file="$LAB/logs/ctl/munged.log" \
	--seed-file=/run/munge/seed --pid-file=/run/munge/munged.pid 8>&-
keep slurmctld slurmctld -D 8>&- &
for dir in sbin bin libexec/favo; do
	[ ! -x "/opt/favo/$dir/favod" ] || { keep favod "/opt/favo/$dir/favod" 8>&- & }
done
while [ -z "$stop" ]; do wait || :; done
