#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Job arrays, each with a cluster of its own, and heterogeneous jobs with an
# image per component, in VMs.
# limit: 400
set -eu
. "$(dirname "$0")/../lib/lab.sh"
need_favo
plan 10
home=$lab_dir/home/alice
login 20 'rm -rf kinds; mkdir kinds' >/dev/null
cat >"$home/kinds/het.sh" <<'END'
#!/bin/bash
#SBATCH -n1 -w n1 --vm-image=debian12 -o kinds/het.out
#SBATCH hetjob
#SBATCH -n1 -w n2 --vm-image=debian12-mpi
srun --mpi=none --het-group=0 sh -c 'echo "zero <$(command -v mpirun)>"'
srun --mpi=none --het-group=1 sh -c 'echo "one <$(command -v mpirun)>"'
srun --mpi=none --het-group=0,1 -l hostname
echo "rc=$?"
END
chown -R 1000:1000 "$home/kinds"

expect "a heterogeneous job" 0 login 60 "sbatch --parsable kinds/het.sh"
het=$(tail -n1 "$out/last")
array=$(login 60 "sbatch --parsable --array=4,6 -n1 --vm-image=debian12 -o kinds/array.%a --wrap \
	'echo task \$SLURM_ARRAY_TASK_ID of \$SLURM_ARRAY_JOB_ID on \$(hostname)'")
expect "ends" 0 retry 240 grep -q '^rc=' "$home/kinds/het.out"
cp "$home/kinds/het.out" "$out/last"
expect_line "its first component has the first image" '^zero <>$'
expect_line "the second one another" '^one </.*mpirun>$'
expect_line "a step over both" '^1: vm0$'
expect_line "ends well" '^rc=0$'

both() { grep -qs '^task' "$home/kinds/array.4" && grep -qs '^task' "$home/kinds/array.6"; }
expect "a job array" 0 retry 240 both
cat "$home/kinds/array.4" "$home/kinds/array.6" >"$out/last"
expect_line "each of its jobs has VMs of its own" "^task 6 of $array on vm0\$"
login 20 "scancel $array $het" >/dev/null 2>&1 || :
expect_clean
expect_nodes_usable
