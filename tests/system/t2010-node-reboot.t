#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# A node that loses power comes back by itself and takes jobs again.
set -eu
. "$(dirname "$0")/../lib/lab.sh"
plan 4

before=$(node n2 'cat /proc/sys/kernel/random/boot_id')
rebooted() { [ "$(node n2 'cat /proc/sys/kernel/random/boot_id')" != "$before" ]; }
idle() { [ "$(login 20 'sinfo -h -n n2 -o %T')" = idle ]; }

expect "power cut of n2" 0 lab node n2 reset
expect "it boots again" 0 retry 60 rebooted
expect "it is idle again" 0 retry 60 idle
expect "and runs a job" 0 login 60 'srun -w n2 hostname'
