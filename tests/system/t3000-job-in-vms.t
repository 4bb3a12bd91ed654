#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# One flag puts a job into virtual machines; everything else of srun and sbatch
# is as without them.
# limit: 600
set -eu
. "$(dirname "$0")/../lib/lab.sh"
need_favo
plan 31

node_kernel=$(node n1 'uname -r')
node_boots="$(node n1 'cat /proc/sys/kernel/random/boot_id')|$(node n2 'cat /proc/sys/kernel/random/boot_id')"
vm='--vm-image=debian12'

expect "srun on two nodes" 0 login 150 \
	"srun -N2 -l $vm sh -c 'hostname; uname -r; cat /proc/sys/kernel/random/boot_id; . /etc/os-release; echo image \$IMAGE_ID'"
expect_line "the first task ran in vm0" '^0: vm0$'
expect_line "the second task ran in vm1" '^1: vm1$'
expect_line "the system is that of the image" '^1: image debian12$'
expect_no_line "the kernel is not the node's" "^[01]: $node_kernel\$"
expect_no_line "the boots are not the nodes'" "$node_boots"
expect_clean "nothing is left after srun"

# One allocation for what follows: a step starts in VMs that already run.
job=$(login 60 "sbatch --parsable -N1 -n2 -o hold.out $vm --wrap 'echo script on \$(hostname); sleep 600'")
step() { login 60 "srun --jobid=$job --overlap $1"; }
started() { login 20 'cat hold.out' | grep -q '^script on vm0$'; }
expect "the batch script runs in the first VM" 0 retry 120 started
expect "exit code" 7 step '-n1 sh -c "exit 7"'
expect "a signal ends a task as without VMs" 137 step '-n1 sh -c "kill -KILL \$\$"'
expect "standard input" 0 login 60 "seq 1000 | srun --jobid=$job --overlap -n1 sha256sum"
expect_line "arrives whole" "$(seq 1000 | sha256sum | cut -d' ' -f1)"
expect "much output" 0 login 60 "srun --jobid=$job --overlap -n1 sh -c 'seq 100000' | sha256sum"
expect_line "arrives whole and in order" "$(seq 100000 | sha256sum | cut -d' ' -f1)"
expect "standard error is apart" 0 login 60 \
	"srun --jobid=$job --overlap -n1 sh -c 'echo out; echo err >&2' 2>/dev/null"
expect_no_line "from standard output" '^err$'
expect "identity" 0 step '-n1 id'
expect_line "is the job's user" '^uid=1000\(alice\) gid=1000\(alice\)'
expect "environment" 0 login 60 "MARK='a b' srun --jobid=$job --overlap -n1 printenv MARK"
expect_line "passes" '^a b$'
expect "Slurm's variables" 0 step '-n2 sh -c "echo \$SLURM_PROCID of \$SLURM_NTASKS"'
expect_line "pass per task" '^1 of 2$'
expect "umask and limits" 0 login 60 \
	"umask 027; ulimit -n 500; srun --jobid=$job --overlap -n1 sh -c 'umask; ulimit -n'"
expect_line "pass: umask" '^0027$'
expect_line "pass: open files" '^500$'
expect "a program that is not there" 2 step '-n1 /no/such/program'
expect "a terminal" 0 login 60 \
	"script -qec 'srun --jobid=$job --overlap -n1 --pty sh -c \"test -t 0 && test -t 1 && echo it is one\"' /dev/null"
expect_line "reaches the guest" 'it is one'
login 20 "scancel $job" || :

expect "srun from a batch script in the guest" 0 login 150 \
	"sbatch -W -N2 -o batch.out $vm --wrap 'hostname; srun -l hostname; squeue -h -o %i' >/dev/null; cat batch.out"
expect_line "starts tasks in all VMs" '^1: vm1$'
expect_clean
