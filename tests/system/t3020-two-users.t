#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Jobs of two users share a node at the same time and do not meet.
# limit: 400
set -eu
. "$(dirname "$0")/../lib/lab.sh"
need_favo
plan 8

one() { # USER
	login 200 "srun -n1 -w n1 --vm-image=debian12 sh -c 'echo \$(id -un) on \$(hostname) boot \$(cat /proc/sys/kernel/random/boot_id); sleep 20; ps ax | wc -l'" "$1"
}
one alice >"$out/alice" 2>&1 &
first=$!
one bob >"$out/bob" 2>&1 &
second=$!

both_ready() { grep -q ' on vm0 ' "$out/alice" && grep -q ' on vm0 ' "$out/bob"; }
expect "both jobs run on the one node at once" 0 retry 150 both_ready
# While both run: neither sees or stops what belongs to the other.
other=$(login 20 'squeue -h -u alice -o %i')
expect "bob sees no console of alice's job" 1 login 20 "favo vc logs $other" bob
expect "alice's job ends well" 0 wait $first
expect "bob's job ends well" 0 wait $second
cat "$out/alice" "$out/bob" >"$out/last"
expect_line "alice is alice" '^alice on vm0'
expect_line "bob is bob" '^bob on vm0'
if [ "$(sed -n 's/.* boot //p' "$out/last" | sort -u | wc -l)" = 2 ]; then
	ok "they had different machines"
else
	not_ok "they had different machines" "$(cat "$out/last")"
fi
expect_clean
