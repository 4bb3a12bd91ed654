#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Slurm in the lab without the flag works as it does without Favo.
set -eu
. "$(dirname "$0")/../lib/lab.sh"
plan 12

expect "srun on two nodes" 0 login 60 'srun -N2 hostname | sort | paste -sd" "'
expect_line "it ran on both" '^n1 n2$'
expect "exit codes pass" 7 login 60 'srun -N1 sh -c "exit 7"'
expect "standard input passes" 0 login 60 'echo hello | srun -N1 cat'
expect_line "and comes back" '^hello$'
expect "four tasks get four cores" 0 login 60 'srun -n4 sh -c "echo \$SLURM_PROCID on \$(hostname)" | sort'
expect_line "two of them on the second node" '^3 on n2$'
expect "no variable of Favo is set" 1 login 60 'srun -N1 env | grep -iE "^[a-z_]*favo"'
expect "sbatch writes its output to the shared home" 0 login 60 \
	'sbatch -W -o plain.out --wrap "srun -N1 hostname" >/dev/null; sync; cat plain.out; rm -f plain.out'
expect_line "where the login host sees it" '^n[12]$'
expect_nodes_usable
expect_clean
