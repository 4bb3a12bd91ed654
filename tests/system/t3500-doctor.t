#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# limit: 400
# favo doctor where VMs run: all is well on login host and node, the test job
# answers, and what a node lacks is seen from everywhere.
set -eu
. "$(dirname "$0")/../lib/lab.sh"
need_favo
plan 12

expect "as a user on the login host: no fault" 0 login 60 'favo doctor'
expect_line "the nodes are well" '^nodes .* ok .* are well'
expect "on a node" 0 node n1 'favo doctor'
expect_line "a guest ran" '^this host .*kvm .* ok .* a guest ran'
expect_line "the network can be made" '^this host .*network .* ok '
expect "a job in VMs" 0 login 300 'favo doctor --test-job --image debian12'
expect_line "its VMs answered" '^job .*test job .* ok .*virtual machine.* answered after'

node n1 'mv /dev/vhost-vsock /dev/vhost-vsock.away; sleep 4'
expect "a node without vsock" 1 node n1 'favo doctor'
expect_line "is told what mends it" 'vsock .*FAILED .*modprobe vhost_vsock'
seen() { login 30 'favo doctor n1' | grep -q 'vsock .*FAILED'; }
if retry 40 seen; then ok "the login host sees it"; else not_ok "the login host sees it"; fi
node n1 'mv /dev/vhost-vsock.away /dev/vhost-vsock; sleep 4; favo doctor' >/dev/null 2>&1 || :
expect "and sees when it is mended" 0 retry 40 login 30 'favo doctor n1'
expect_clean "nothing is left"
