#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# limit: 900
# kill -9 of each part in mid-job: what ran goes on or fails with a cause, the
# next job works, and nothing is left.
set -eu
. "$(dirname "$0")/../lib/lab.sh"
need_favo
plan 33

# start_job TAG SECONDS: a job in a VM of n1 that says TAG and waits; its srun
# runs in the background with its output in $out/TAG.
start_job() {
	start_tag=$1
	login 300 "srun -N1 -w n1 --vm-image=debian12 sh -c 'echo up; sleep $2; echo over'" \
		>"$out/$start_tag" 2>&1 &
	job_pid=$!
	if retry 200 grep -q '^up$' "$out/$start_tag"; then
		ok "$start_tag: the job runs"
	else
		not_ok "$start_tag: the job runs" "$(cat "$out/$start_tag")"
	fi
}

# end_job TAG WANTED: compare how srun ended ("0" or "fail").
end_job() {
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

usable() {
	expect "$1: the next job runs" 0 login 200 'srun -N1 -w n1 --vm-image=debian12 uname -n'
	expect_line "$1: in a guest" '^vm0$'
	expect_clean "$1: nothing is left"
}

# ---- favo-vmm ----------------------------------------------------------
start_job vmm 200
node n1 'pkill -9 -x favo-vmm'
end_job vmm fail
expect_line "vmm: the user hears that the VM ended" '^favo: n1: vm0: '
usable vmm

# ---- favo-noded: running guests go on, it adopts them ------------------------
start_job noded 20
node n1 'pkill -9 -x favo-noded'
end_job noded 0
expect_line "noded: the task ended by itself" '^over$'
usable noded

# ---- favo-noded dead when the job ends -----------------------------------------
start_job late 8
node n1 'mkdir -p /run/hold; touch /run/hold/favo-noded; pkill -9 -x favo-noded'
end_job late 0
expect "a job with the flag fails clearly while favo-noded is down" 1 \
	login 100 'srun -N1 -w n1 --vm-image=debian12 true'
expect_line "with node and remedy" '^favo: n1: .*favo-noded'
expect "a job without the flag runs" 0 login 60 'srun -N1 -w n1 true'
node n1 'rm /run/hold/favo-noded'
retry 20 node n1 'test -S /run/favo/noded.sock'
usable late

# ---- favo-task ---------------------------------------------------------
start_job task 200
node n1 'pkill -9 -x favo-task'
end_job task fail
usable task

# ---- slurmd: guests go on -------------------------------------------------
start_job slurmd 20
node n1 'pkill -9 -x slurmd'
end_job slurmd 0
expect_line "slurmd: the task ended by itself" '^over$'
retry 60 node n1 'pgrep -x slurmd'
usable slurmd

expect_nodes_usable
expect_clean "nothing is left of all of it"
