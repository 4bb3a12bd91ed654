#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# scancel in each phase of a job's life: the job ends soon, the node stays in
# service, nothing is left.
# limit: 600
set -eu
. "$(dirname "$0")/../lib/lab.sh"
need_favo
plan 15

gone() { [ -z "$(login 20 "squeue -h -j $job 2>/dev/null")" ]; }
cancel() { # PHASE
	login 20 "scancel $job"
	expect "scancel $1: the job ends" 0 retry 40 gone
	expect_clean "scancel $1: nothing is left"
	expect_nodes_usable
}
submit() { job=$(login 20 "sbatch --parsable -N2 -o cancel.out --vm-image=debian12 --wrap '$1'"); }
has_vmm() { [ -n "$(node n1 'pidof favo-vmm')" ]; }
in_task() { login 20 'cat cancel.out' 2>/dev/null | grep -q '^in task$'; }

submit 'sleep 300'
cancel "right after submission"

submit 'sleep 300'
retry 60 has_vmm || :
cancel "while the guests boot"

submit 'echo in task; sleep 300'
retry 120 in_task || :
cancel "while the script runs"

login 20 'rm -f cancel.out'
submit 'srun sh -c "echo in task; trap \"\" TERM; sleep 300"'
retry 120 in_task || :
cancel "while tasks that ignore SIGTERM run"

job=$(login 20 "sbatch --parsable --begin=now+600 -N2 --vm-image=debian12 --wrap true")
cancel "while the job waits in the queue"
