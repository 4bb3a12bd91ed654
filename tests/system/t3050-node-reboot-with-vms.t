#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# A node loses power in mid-job: the job ends, the node comes back clean.
# limit: 400
set -eu
. "$(dirname "$0")/../lib/lab.sh"
need_favo
plan 6

in_task() { login 20 'cat reboot.out' 2>/dev/null | grep -q '^in task$'; }
before=$(node n2 'cat /proc/sys/kernel/random/boot_id')
rebooted() { [ "$(node n2 'cat /proc/sys/kernel/random/boot_id')" != "$before" ]; }
idle() { [ "$(login 20 'sinfo -h -t idle -o %D')" = 2 ]; }
login 20 'rm -f reboot.out'
job=$(login 20 "sbatch --parsable --no-requeue -N2 -o reboot.out --vm-image=debian12 --wrap 'echo in task; sleep 600'")
expect "the job runs" 0 retry 120 in_task
expect "power cut of n2" 0 lab node n2 reset
expect "it boots again" 0 retry 60 rebooted
login 20 "scancel $job" || :
expect "both nodes are idle again" 0 retry 100 idle
expect_clean
expect "and run a job in VMs" 0 login 150 'srun -N2 --vm-image=debian12 hostname'
