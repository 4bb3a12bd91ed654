#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# The plugin where it must not hurt: favod silent or gone, favo-noded gone,
# wrong options, allocations without VMs, a grant of somebody else.
# limit: 600
set -eu
. "$(dirname "$0")/../lib/lab.sh"
need_favo
plan 39

submit=/opt/favo/libexec/favo/favo-submit
vm='--vm-image=debian12'

# ---- wrong words ---------------------------------------------------------
refused() { # NAME PATTERN COMMAND-LINE
	expect "$1 is refused" 1 login 30 "$3"
	expect_line "$1: the sentence says why" "^(srun|sbatch|salloc): error: favo: .*$2"
}
refused "an unknown image" 'did you mean .*debian12' 'srun --vm-image=debain12 true'
refused "a network that is not there yet" 'nat is not in this version' "srun $vm --vm-network=nat true"
refused "a shape without image" 'without --vm-image' 'sbatch --vm-mem=1G --wrap true'
refused "a number that is none" 'vm-cpus' "salloc $vm --vm-cpus=many true"
refused "an image from the environment" 'nosuch' 'FAVO_VM_IMAGE=nosuch srun true'
refused "an image in an allocation without VMs" 'give --vm-image to salloc or sbatch' \
	"salloc -Q -N1 srun $vm true"
expect "a shape from the environment does not touch plain jobs" 0 login 30 'FAVO_VM_MEM=1G srun true'

# ---- favod ---------------------------------------------------------------
refused "favod out of reach" 'favod does not answer, the job was not submitted' \
	"FAVO_CONF_FAVOD_URL=http://ctl:9 srun $vm true"
refused "munged out of reach" 'munge' "FAVO_CONF_MUNGE_SOCKET=/nowhere srun $vm true"
login 20 'kill -STOP $(pidof favod)' root
expect "favod is silent: the command ends in time" 1 login 14 "srun $vm true"
expect_line "and says so" 'favo: favod (does not answer|gave no answer)'
expect "favod is silent: plain jobs run" 0 login 30 'srun -N2 true'
login 20 'kill -CONT $(pidof favod)' root
login 20 'kill -KILL $(pidof favod)' root
back() { login 20 "$submit $vm" | grep -q '^grant '; }
expect "favod was killed: it comes back and signs" 0 retry 30 back

# ---- multi-prog ------------------------------------------------------------
login 20 'printf "0 hostname\n" >multi.conf'
expect "--multi-prog" 0 login 120 "srun -n1 $vm --multi-prog multi.conf"
expect_line "runs in the VM" '^vm0$'
expect_no_line "and nothing ran on the node" '^n[12]$'
expect "--multi-prog works without VMs" 0 login 30 'srun -n1 --multi-prog multi.conf'
expect_line "on the node" '^n[12]$'
expect_clean

# ---- favo-noded ------------------------------------------------------------
node n1 'mkdir -p /run/hold; touch /run/hold/favo-noded; kill -KILL $(pidof favo-noded)'
expect "favo-noded is gone: plain jobs run" 0 login 30 'srun -w n1 true'
expect "favo-noded is gone: a job for VMs fails" 1 login 60 "srun -w n1 $vm hostname"
expect_line "in one sentence" '^favo: n1: .*favo-noded'
expect_no_line "and does not run on the node" '^n1$'
expect_nodes_usable
node n1 'rm -f /run/hold/favo-noded'
noded_up() { node n1 'test -S /run/favo/noded.sock && favo doctor' | grep -qE '^this host +favo-noded +ok'; }
expect "favo-noded comes back" 0 retry 120 noded_up
expect_clean

# ---- somebody else's grant -------------------------------------------------
# bob goes around the plugin: Slurm's client with a plugstack of his own.
grant=$(login 20 "$submit $vm" | sed 's/^grant //')
login 20 'mkdir -p slurm; : >slurm/plugstack.conf
	sed "s|^PlugStackConfig=.*|PlugStackConfig=$HOME/slurm/plugstack.conf|" /etc/slurm/slurm.conf >slurm/slurm.conf' bob
expect "another user's grant starts nothing" 1 login 120 \
	"SLURM_CONF=\$HOME/slurm/slurm.conf SLURM_SPANK_FAVO_GRANT=$grant srun -N1 hostname" bob
expect_line "the sentence names the node" '^favo: n[12]: '
expect_no_line "and nothing ran on the node" '^n[12]$'
expect_nodes_usable
expect_clean
