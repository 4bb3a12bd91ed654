#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# limit: 600
# VMs that start before their image is complete: right bytes, favo-noded and
# favod killed on the way, nothing left.
set -eu
. "$(dirname "$0")/../lib/lab.sh"
need_favo
plan 10

# lazy_again: n1 forgets its images and starts VMs lazily from now on.
lazy_again() {
	node n1 'rm -rf /var/lib/favo/cache/images/*
		[ -f /run/favo.conf.orig ] || cp /etc/favo/favo.conf /run/favo.conf.orig
		cp /run/favo.conf.orig /etc/favo/favo.conf
		echo "image_lazy = always" >>/etc/favo/favo.conf
		echo "image_lazy_timeout = 20s" >>/etc/favo/favo.conf
		pkill -9 -x favo-noded; sleep 0.5'
	retry 20 node n1 'test -S /run/favo/noded.sock && pidof favo-noded'
}
restore() {
	node n1 '[ ! -f /run/favo.conf.orig ] || { cp /run/favo.conf.orig /etc/favo/favo.conf
		rm /run/favo.conf.orig; pkill -x favo-noded; }' || :
	login 20 'kill -CONT $(pidof favod)' root || :
}
trap 'exit_code=$?; restore; [ $exit_code != 0 ] || exit $test_failed' EXIT

# Large files that no start reads, and what they must be.
sums='find /usr -xdev -type f -size +700k | sort | head -n 12 | xargs sha256sum | sha256sum'

# start TAG SCRIPT: a job in a VM of n1, in the background; it says "up" first.
start() {
	start_tag=$1
	login 200 "srun -N1 -w n1 --vm-image=debian12 sh -c 'echo up; $2'" \
		>"$out/$start_tag" 2>&1 &
	job_pid=$!
	if retry 150 grep -q '^up$' "$out/$start_tag"; then
		ok "$start_tag: the first task runs"
	else
		not_ok "$start_tag: the first task runs" "$(cat "$out/$start_tag")"
	fi
}

# finish TAG WANTED: how srun ended ("0" or "fail").
finish() {
	end_code=0
	wait "$job_pid" || end_code=$?
	[ "$end_code" = 0 ] || end_code=fail
	cp "$out/$1" "$out/last"
	if [ "$end_code" = "$2" ]; then
		ok "$1: srun ends as it should ($2)"
	else
		not_ok "$1: srun ends as it should ($2)" "$(cat "$out/last")"
	fi
}

# ---- favo-noded killed while the image is not complete --------------------------
lazy_again
start noded "sleep 8; $sums"
expect "the image is not complete" 0 node n1 'ls -d /var/lib/favo/cache/images/*.part'
expect "favo-lazy serves it" 0 node n1 'pkill -9 -x favo-noded; pidof favo-lazy && cat /sys/block/nbd*/pid'
finish noded 0
first=$(grep -E '^[0-9a-f]{64} ' "$out/last" || echo none)
expect_clean "noded: nothing is left"
expect "favod knows what the start read" 0 retry 20 sh -c "ls $lab_dir/favod/store/prefetch | grep -q ."

# ---- favod killed, and back ---------------------------------------------------------
lazy_again
start favod "sleep 4; $sums"
login 20 'kill -KILL $(pidof favod)' root
finish favod 0
expect_line "favod: the same bytes" "^$first"

restore
expect_clean "favod: nothing is left"
