# SPDX-License-Identifier: GPL-2.0-or-later
# The demo: an MPI job in virtual machines on two nodes, and the proof that it
# ran in them.

LAB_CMD=$TOP/tests/lab/lab

lab_login() { timeout "${1}" "$LAB_CMD" run "$2"; }

demo_submit() {
	cat >"$LAB/home/alice/demo.sh" <<'END'
#!/bin/bash
#SBATCH --job-name=demo --nodes=2 --ntasks=4 --ntasks-per-node=2
#SBATCH --output=/home/alice/demo-%j.out
echo "script: on $(hostname), $(. /etc/os-release; echo "$PRETTY_NAME"), kernel $(uname -r)"
cd /opt/favo-demo
srun --mpi=pmix ./ring
END
	chown 1000:1000 "$LAB/home/alice/demo.sh"
	lab_login 60 "sbatch --parsable --vm-image=debian12-mpi demo.sh"
}

# demo_wait JOB SECONDS: until the job is no longer in the queue.
demo_wait() {
	timeout "$2" "$LAB_CMD" run "while squeue -h -j $1 2>/dev/null | grep -q .; do sleep 0.3; done"
}

# demo_check OUTPUT: every rank in a guest, none of them on a node's system.
demo_check() {
	local out=$1 node boots ranks wrong=0
	ranks=$(grep -c '^rank [0-9]* of 4: .* image debian12-mpi$' "$out" || :)
	[ "$ranks" = 4 ] || { echo "only $ranks of 4 ranks ran in the image debian12-mpi"; wrong=1; }
	boots=$(sed -n 's/^rank .* boot \([^,]*\),.*/\1/p' "$out" | sort -u)
	[ "$(printf '%s\n' "$boots" | wc -l)" = 2 ] || { echo "not exactly two guests"; wrong=1; }
	for node in n1 n2; do
		timeout 20 "$LAB_CMD" ssh $node 'cat /proc/sys/kernel/random/boot_id; uname -r' \
			</dev/null >"$LAB/run/demo.$node"
		! printf '%s\n' "$boots" | grep -qF "$(head -n1 "$LAB/run/demo.$node")" ||
			{ echo "a rank ran on $node itself"; wrong=1; }
		! grep -qF "kernel $(tail -n1 "$LAB/run/demo.$node")," "$out" ||
			{ echo "a rank saw the kernel of $node"; wrong=1; }
	done
	grep -q '^ring: .*: ok$' "$out" || { echo "the ring's result is missing or wrong"; wrong=1; }
	grep -q '^allreduce: .*: ok$' "$out" || { echo "the allreduce is missing or wrong"; wrong=1; }
	return $wrong
}

demo() {
	local job out
	say "Submitting a job of 4 MPI ranks on 2 nodes:"
	say "  sbatch --vm-image=debian12-mpi demo.sh"
	job=$(demo_submit) || fail "sbatch failed; see $LAB/logs/ctl and: $LAB_CMD logs"
	step "job $job" "$LAB/logs/demo-wait.log" demo_wait "$job" 300 || :
	out=$LAB/home/alice/demo-$job.out
	echo
	echo "Output of job $job:"
	sed 's/^/  /' "$out" 2>/dev/null || fail "job $job left no output; $LAB_CMD logs shows more"
	echo
	echo "Time line (favo vc show $job):"
	lab_login 30 "favo vc show $job" | sed 's/^/  /' || :
	echo
	demo_check "$out" || fail "job $job is not what it should be; $LAB_CMD logs shows more"
	echo "All 4 ranks ran in guests whose system is not the nodes'; ring and allreduce are right."
}
