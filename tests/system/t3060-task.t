#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# What a task in a VM keeps of a task on the node: terminal, signals, working
# directory, PMI; and Slurm's commands called from inside the guest.
# limit: 400
set -eu
. "$(dirname "$0")/../lib/lab.sh"
need_favo
plan 25

vm='--vm-image=debian12'
job=$(login 60 "sbatch --parsable -N1 -n2 -o hold.out $vm --wrap 'echo up; sleep 900'")
step() { login 60 "srun --jobid=$job --overlap $1"; }
started() { login 20 'cat hold.out' | grep -q '^up$'; }
expect "virtual machine" 0 retry 200 started

expect "a terminal with its size" 0 login 60 "TERM=xterm script -qec \
	'stty rows 33 cols 99; srun --jobid=$job --overlap -n1 --pty sh -c \"stty size; tty\"' /dev/null"
expect_line "rows and columns are those outside" "33 99"
expect_line "it is one of the guest" '^/dev/pts/'

# The step sends its own signal: its number is not known outside.
expect "scancel --signal" 3 login 60 "srun --jobid=$job --overlap -n1 sh -c \
	'trap \"echo got usr1; exit 3\" USR1; (sleep 2; scancel -s USR1 \$SLURM_JOB_ID.\$SLURM_STEP_ID) & while :; do sleep 0.1; done'"
expect_line "reaches the process in the guest" '^got usr1$'
expect "a segmentation fault" 139 step '-n1 sh -c "kill -SEGV \$\$"'

expect "a working directory that the guest has not got" 0 login 60 \
	"cd /opt/favo/libexec; srun --jobid=$job --overlap -n1 pwd"
expect_line "is named once" '/opt/favo/libexec: No such file or directory; started in /home/alice$'
expect_line "and replaced by the home directory" '^/home/alice$'

expect "PMI-2" 0 login 60 "srun --mpi=pmi2 --jobid=$job --overlap -n1 bash -c \
	'echo cmd=init pmi_version=1 pmi_subversion=1 >&\$PMI_FD; read -u \$PMI_FD line; echo \$line'"
expect_line "is answered by slurmstepd" '^cmd=response_to_init .*rc=0'

expect "nothing of the host's own variables" 0 login 60 \
	"LD_LIBRARY_PATH=/x srun --jobid=$job --overlap -n1 env"
expect_no_line "reaches a task" '^(LD_|SLURM_SPANK_FAVO|FAVO_TASK)'

expect "Slurm from inside" 0 step "-n1 sh -c 'squeue -h -o job=%i; sinfo -h -o node=%n; scontrol show job $job'"
expect_line "squeue" "^job=$job\$"
expect_line "sinfo" '^node=n1$'
expect_line "scontrol" "JobId=$job "
expect "its exit codes" 9 login 60 "srun --jobid=$job --overlap -n1 sh -c 'srun --overlap -n1 sh -c \"exit 9\"'"
expect "its standard input" 0 login 60 \
	"srun --jobid=$job --overlap -n1 sh -c 'echo word | srun --overlap -n1 cat'"
expect_line "arrives" '^word$'
expect "variables of the guest" 0 login 60 \
	"srun --jobid=$job --overlap -n1 sh -c 'FOO=\"a b\" srun --overlap -n1 sh -c \"echo FOO=\\\$FOO on \\\$(hostname)\"'"
expect_line "reach the inner task" '^FOO=a b on vm0$'
login 20 "scancel $job" || :
expect_nodes_usable
expect_clean
