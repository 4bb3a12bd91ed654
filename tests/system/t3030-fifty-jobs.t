#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Fifty short jobs in a row: none fails, nothing accumulates.
# limit: 900
set -eu
. "$(dirname "$0")/../lib/lab.sh"
need_favo
plan 4

before=$(node n1 'ls /proc/$(pidof favo-noded)/fd | wc -l')
for _ in $(seq 50); do
	login 20 "sbatch --parsable -n1 -o fifty-%j.out --vm-image=debian12 --wrap 'echo done on \$(hostname)'"
done >"$out/ids"
no_queue() { [ -z "$(login 20 'squeue -h')" ]; }
retry 800 no_queue || :
finished=$(login 20 'cat fifty-*.out | grep -c "^done on vm0$"; rm -f fifty-*.out' | head -n1)
if [ "$finished" = 50 ]; then ok "all fifty ran"; else not_ok "all fifty ran" "$finished of 50"; fi
after=$(node n1 'ls /proc/$(pidof favo-noded)/fd | wc -l')
if [ "$after" -le $((before + 3)) ]; then ok "favo-noded keeps no descriptor"; else
	not_ok "favo-noded keeps no descriptor" "$before before, $after after"
fi
expect_nodes_usable
expect_clean
