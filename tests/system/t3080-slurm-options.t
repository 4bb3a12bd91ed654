#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# What Slurm's users are used to, in VMs: redirection, prologs, limits,
# --multi-prog, time limits, mpirun without ssh; and favo vc exec, shell and top.
# limit: 600
set -eu
. "$(dirname "$0")/../lib/lab.sh"
need_favo
plan 51
home=$lab_dir/home/alice
script() { # NAME: from standard input
	cat >"$home/$1"
	chmod 755 "$home/$1"
	chown 1000:1000 "$home/$1"
}
state() { login 20 "scontrol show job $1" | tr ' ' '\n' | sed -n "s/^$2=//p"; }
is_state() { [ "$(state "$1" JobState)" = "$2" ]; }
has_line() { grep -q "$2" "$home/$1"; }
login 20 'rm -rf options; mkdir options' >/dev/null

script options/main.sh <<'END'
#!/bin/bash
mpirun -np 2 hostname >options/mpirun.out 2>&1
echo "rc=$?" >>options/mpirun.out
export LD_LIBRARY_PATH=/from/script
srun -n1 printenv LD_LIBRARY_PATH
printf '0 sh options/first.sh %%t\n1 hostname\n' >options/multi.conf
echo 'echo first $1 on $(hostname)' >options/first.sh
srun --mpi=none -l --multi-prog options/multi.conf >options/multi.out
trap 'echo got usr1' USR1
trap 'echo got term' TERM
echo up
while :; do sleep 1 & wait $!; done
END
job=$(login 60 "sbatch --parsable -N2 -n2 --ntasks-per-node=1 -J opt --vm-image=debian12-mpi -o options/main.out options/main.sh")
expect "a job of two VMs" 0 retry 300 has_line options/main.out '^up$'
cp "$home/options/main.out" "$out/last"
expect_line "LD_LIBRARY_PATH of the script reaches its sruns" '^/from/script$'
cp "$home/options/mpirun.out" "$out/last"
expect_line "mpirun starts ranks without ssh: here" '^vm0$'
expect_line "and in the other VM" '^vm1$'
expect_line "and ends well" '^rc=0$'

script options/prolog.sh <<'END'
#!/bin/sh
echo "print from the prolog"
echo "export FROM_PROLOG=yes"
END
# step OPTIONS COMMAND: in both VMs
step() { login 60 "cd options; srun --jobid=$job --overlap --mpi=none $1"; }
expect "standard input, output and error by file" 0 step \
	"--input=prolog.sh --output=o.%t --error=e.%t sh -c 'head -n1; echo err \$SLURM_PROCID >&2'"
cat "$home"/options/o.[01] "$home"/options/e.[01] >"$out/last"
expect_line "each task has its input" '^#!/bin/sh$'
expect_line "and its error file" '^err 1$'
expect "standard input for one task" 0 login 60 "echo word | srun --jobid=$job --overlap --mpi=none -l --input=1 cat"
expect_line "goes to that task" '^1: word$'
expect_no_line "and not to the other" '^0: word$'

script options/epilog.sh <<'END'
#!/bin/sh
touch "$HOME/options/epilog.ran"
END
expect "TaskProlog and TaskEpilog" 0 step \
	"-n1 -N1 --task-prolog=\$PWD/prolog.sh --task-epilog=\$PWD/epilog.sh sh -c 'echo prolog=\$FROM_PROLOG; test ! -e epilog.ran'"
expect_line "the prolog prints" '^from the prolog$'
expect_line "and sets variables of the task" '^prolog=yes$'
expect "the epilog ran" 0 test -e "$home/options/epilog.ran"

expect "limits" 0 step "-n1 -N1 true; ulimit -s 4096; ulimit -n 333; srun --jobid=$job --overlap -n1 -N1 --propagate=STACK sh -c 'echo \$(ulimit -s) \$(ulimit -n)'"
expect_line "as --propagate says" '^4096 '
expect_no_line "and not more" ' 333$'
expect "a core file" 139 login 60 "cd options; ulimit -c unlimited; srun --jobid=$job --overlap -n1 -N1 sh -c 'kill -SEGV \$\$'"
expect "is in the task's directory" 0 test -s "$home/options/core"

cp "$home/options/multi.out" "$out/last"
expect_line "--multi-prog: one program in the first VM" '^0: first 0 on vm0$'
expect_line "another in the second" '^1: vm1$'
expect "--multi-prog from outside of the job" 1 step '-n2 --multi-prog multi.conf'
expect_line "does not run on the nodes" 'multi-prog with --jobid: .* tell it by --vm-image$'
expect "steps at once" 0 login 60 "for i in 1 2 3; do srun --jobid=$job --overlap -n1 -N1 sh -c 'echo step' & done; wait"
if [ "$(grep -c '^step$' "$out/last")" = 3 ]; then ok "all run"; else not_ok "all run" "$(cat "$out/last")"; fi
expect "a step that leaves a daemon" 0 step "-n1 -N1 sh -c '(setsid sleep 7777 >/dev/null 2>&1 &); sleep 0.5'"
expect "does not keep it" 1 step "-n1 -N1 sh -c 'pgrep -f \"^sleep 7777\"'"
# ---- favo vc exec, shell ----------------------------------------------------
expect "favo vc exec in one VM" 7 login 60 "favo vc exec $job vm1 sh -c 'hostname; exit 7'"
expect_line "runs there" '^vm1$'
expect "favo vc exec in several" 0 login 60 "favo vc exec $job 'vm[0-1]' hostname"
expect_line "names the VM of each line" '^vm0: vm0$'
expect_line "and of the other" '^vm1: vm1$'
expect "root, for a user's job" 0 login 60 "favo vc exec $job vm0 id -un" root
expect_line "is the user in the guest" '^alice$'
expect "a VM that is not there" 1 login 60 "favo vc exec $job vm9 true"
expect_line "is named" 'the job has no VM vm9'
expect "somebody else's job" 1 login 60 "favo vc exec $job vm0 true" bob
expect "favo vc shell" 3 login 60 "printf 'tty; hostname; exit 3\n' | TERM=xterm script -qec 'favo vc shell $job vm1' /dev/null"
expect_line "is a terminal" '/dev/pts/[0-9]'
expect_line "in that VM" '^vm1'

expect "favo vc top" 0 login 60 "favo vc top $job"
expect_line "shows each VM" '^vm1  *n2  *[1-9]'
expect "as JSON" 0 login 60 "favo vc top --json --interval=1 --count=1 $job"
expect_line "with figures" '"mem_used_bytes": [1-9][0-9]{6}'

# ---- time limit -----------------------------------------------------------------
expect "scancel --batch --signal" 0 login 20 "scancel --batch -s USR1 $job"
expect "reaches the script" 0 retry 30 has_line options/main.out '^got usr1$'
login 20 "scontrol update JobId=$job TimeLimit=1"
expect "a time limit" 0 retry 150 is_state "$job" TIMEOUT
expect "gives the script SIGTERM first" 0 has_line options/main.out '^got term$'
expect_nodes_usable
expect_clean
