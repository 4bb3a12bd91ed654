#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# OpenMPI over the guests of two nodes, started by PMIx through the relay.
# limit: 400
set -eu
. "$(dirname "$0")/../lib/lab.sh"
need_favo
[ -f "$lab_dir/assets/image-debian12-mpi.inputs" ] || skip_all "image debian12-mpi is not built"
plan 9

mpi='--mpi=pmix --vm-image=debian12-mpi'
expect "four ranks on two nodes" 0 login 200 "srun -N2 -n4 $mpi /opt/favo-demo/ring"
expect_line "the ring's result is right" '^ring: token 10, expected 10, .*: ok$'
expect_line "the allreduce is right" '^allreduce: .* 0 wrong: ok$'
expect_line "rank 0 is in vm0" '^rank 0 of 4: host vm0, .* image debian12-mpi$'
expect_line "rank 3 is in vm1" '^rank 3 of 4: host vm1, .* image debian12-mpi$'
expect "two ranks in one VM" 0 login 150 "srun -N1 -n2 $mpi /opt/favo-demo/ring"
expect_line "agree too" '^ring: token 3, expected 3, .*: ok$'
expect_nodes_usable
expect_clean
