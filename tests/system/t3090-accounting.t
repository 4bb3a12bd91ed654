#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# What Slurm sees of the VMs: their CPU time and memory in sstat, the limit of
# the job's memory, scontrol suspend, resume and requeue.
# limit: 540
set -eu
. "$(dirname "$0")/../lib/lab.sh"
need_favo
plan 21
home=$lab_dir/home/alice
login 20 'rm -rf acct; mkdir acct' >/dev/null
state() { login 20 "scontrol -o show job $1" | tr ' ' '\n' | sed -n 's/^JobState=//p'; }
is_state() { [ "$(state "$1")" = "$2" ]; }
has_line() { grep -q "$2" "$home/$1"; }

# sstat_of JOB FIELD: of the extern step, where the VM is counted
sstat_of() { login 30 "sstat -a -n -P -j $1 --format=JobID,$2" | sed -n "s/^$1.extern|//p"; }
seconds() { awk -F: '{print $1 * 3600 + $2 * 60 + $3}'; }
kib() { tr -d K; }
# vm_seconds: CPU time of the processes that make the node's VM
vm_seconds() {
	node n1 'for p in $(pgrep "^(favo-vmm|virtiofsd)"); do cut -d" " -f14,15 /proc/$p/stat; done' |
		awk '{t += $1 + $2} END {printf "%.2f\n", t / 100}'
}
# near NAME VALUE WANTED PERCENT SLACK
near() {
	if awk -v v="$2" -v w="$3" -v p="$4" -v s="$5" \
		'BEGIN {d = v - w; if (d < 0) d = -d; exit !(d <= w * p / 100 + s)}'; then
		ok "$1"
	else
		not_ok "$1" "$2 where $3 is expected"
	fi
}
step() { login 90 "srun --jobid=$job --overlap --mpi=none $1"; }

job=$(login 60 "sbatch --parsable -w n1 -n1 --vm-image=debian12 -o acct/main.out --wrap 'echo up; sleep 600'")
expect "a job in a VM" 0 retry 120 has_line acct/main.out '^up$'
expect "a guest that computes" 0 step "sh -c 'i=0; while [ \$i -lt 150000 ]; do i=\$((i+1)); done'"
want=$(vm_seconds)
near "sstat shows its CPU time" "$(sstat_of "$job" AveCPU | seconds)" "$want" 5 1.5
before=$(sstat_of "$job" MaxVMSize | kib)
expect "a guest that uses 200 MiB" 0 step "sh -c 'head -c 200M /dev/zero >/dev/shm/x'"
after=$(sstat_of "$job" MaxVMSize | kib)
near "sstat shows its memory" $((after - before)) 204800 5 0

# ---- suspend ----------------------------------------------------------------
# The guest's clock against the node's, in ms: emulated nodes may be off as a whole.
offset() {
	step "sh -c 'for i in 1 2 3; do date +%s%N >acct/clock.\$i; done'" >/dev/null
	for i in 1 2 3; do
		echo $(($(cat "$home/acct/clock.$i") / 1000000 - $(date -r "$home/acct/clock.$i" +%s%3N)))
	done | sort -n | tail -n1
}
frozen() { node n1 "cat /sys/fs/cgroup/freezer/slurm*/uid_1000/job_$job/step_extern/favo/freezer.state" | grep -qx FROZEN; }
clock_before=$(offset)
expect "scontrol suspend" 0 login 30 "scontrol suspend $job" root
expect "the job is suspended" 0 retry 20 is_state "$job" SUSPENDED
expect "the VM is frozen" 0 retry 20 frozen
want=$(vm_seconds)
node n1 'sleep 5' # a stretch of time to be missed, nothing is waited for
near "and takes no CPU time" "$(vm_seconds)" "$want" 0 0
expect "scontrol resume" 0 login 30 "scontrol resume $job" root
expect "a step runs again" 0 step hostname
expect_line "in the VM" '^vm0$'
near "the guest's clock is right" $(($(offset) + 100000000)) $((clock_before + 100000000)) 0 1500

# ---- more than its share ----------------------------------------------------
# The limit of the job, as if the VM were larger than what favo-noded gave it.
node n1 "for d in /sys/fs/cgroup/memory/slurm*/uid_1000/job_$job/step_extern/task_*/favo; do
	n=\$((\$(cat \$d/memory.usage_in_bytes) + 60000000))
	echo \$n >\$d/memory.limit_in_bytes; done"
expect "a guest over the job's memory" 1 step "sh -c 'head -c 200M /dev/zero >/dev/shm/y'"
expect_line "is ended, and the user told" 'n1: vm0: .*out of memory: .* the job.s memory limit'
expect_line "with a remedy" 'give the VM less with .*or the job more with --mem'
login 20 "scancel $job" >/dev/null

# ---- requeue ----------------------------------------------------------------
retry 60 no_jobs || :
# What a run leaves in its guest is not there in the next one.
run='test ! -e /tmp/mark && echo fresh; : >/tmp/mark; echo up \$SLURM_RESTART_COUNT; sleep 600'
job=$(login 60 "sbatch --parsable --requeue --open-mode=append -w n1 -n1 --vm-image=debian12 -o acct/second.out --wrap \"$run\"")
expect "a job that may run again" 0 retry 120 has_line acct/second.out '^up'
login 30 "scontrol requeue $job" root
# Slurm waits two minutes, from the end of the epilog, unless it is told not to.
runs_again() {
	has_line acct/second.out '^up 1$' && return
	! is_state "$job" PENDING || login 30 "scontrol update JobId=$job StartTime=now" root
	sleep 2
	false
}
expect "scontrol requeue" 0 retry 240 runs_again
if [ "$(grep -c '^fresh$' "$home/acct/second.out")" = 2 ]; then
	ok "starts it in a new guest"
else
	not_ok "starts it in a new guest" "$(cat "$home/acct/second.out")"
fi

login 30 "scontrol suspend $job" root
retry 20 frozen || :
login 20 "scancel $job"
expect_clean "a suspended job ends and leaves nothing"
expect_nodes_usable
