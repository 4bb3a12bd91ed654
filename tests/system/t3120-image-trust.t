#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# A node that starts signed images only: by a key it knows, by one it does not,
# and without a signature.
# limit: 600
set -eu
. "$(dirname "$0")/../lib/lab.sh"
need_favo
plan 9

# configure LINES: favo.conf of n1 and a new favo-noded
configure() {
	node n1 "[ -e /run/favo.conf.orig ] || cp /etc/favo/favo.conf /run/favo.conf.orig
		{ cat /run/favo.conf.orig; echo '$1'; } >/etc/favo/favo.conf
		mkdir -p /etc/favo/image.keys; pkill -x favo-noded" || :
	retry 20 node n1 'test -S /run/favo/noded.sock'
}

configure 'image_trust = signed'
expect "a node without the key starts nothing" 1 login 60 'srun -N1 -w n1 --vm-image=debian12 true'
expect_line "and says why" '^favo: n1: .*image debian12:latest is not trusted by this node: '
expect "the site's key signs" 0 login 20 'favo image sign debian12' root
login 20 'cat /etc/favo/image.pub' root >"$out/image.pub"
node n1 "echo '$(cat "$out/image.pub")' >/etc/favo/image.keys/site.pub"
expect "a node with the key starts it" 0 login 120 'srun -N1 -w n1 --vm-image=debian12 true'
retry 60 no_jobs
id=$(login 20 'favo image ls --json' | jq -r '.images[]|select(.name=="debian12").digest' | cut -d: -f2)
node n1 'rm -rf /var/lib/favo/trust'
login 20 "mv /var/lib/favo/store/manifests/$id.sig /var/lib/favo/store/manifests/$id.away" root
expect "without a signature it does not" 1 login 60 'srun -N1 -w n1 --vm-image=debian12 true'
expect_line "and says so" 'is not trusted by this node: it is not signed'
login 20 "mv /var/lib/favo/store/manifests/$id.away /var/lib/favo/store/manifests/$id.sig" root
expect "what was signed since is started" 0 login 120 'srun -N1 -w n1 --vm-image=debian12 true'
configure ''
expect "any image is started as before" 0 login 120 'srun -N1 -w n1 --vm-image=debian12 true'
expect_clean
