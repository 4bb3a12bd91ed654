#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# An image that starts often: the node makes a snapshot of it, later jobs start
# from there, of whatever user, and have nothing in common; a damaged snapshot
# costs a job no more than time.
# limit: 600
set -eu
. "$(dirname "$0")/../lib/lab.sh"
need_favo
plan 9

ask='echo "$(id -un) on $(hostname) machine $(cat /etc/machine-id) random $(head -c 8 /dev/urandom | od -An -tx8 | tr -d " ") clock $(date +%s)"'
one() { # USER FILE
	login 200 "srun -n1 -w n1 --vm-image=debian12 --vm-sandbox --vm-mem=384M sh -c '$ask'" "$1" >"$out/$2" 2>"$out/$2.err"
}
log() { node n1 "grep -c '$1' /var/log/favo-noded.out || :"; }
made() { [ "$(log 'warm pool: snapshot .* made')" -gt "$before" ]; }
used() { [ "$(log 'starts from snapshot')" -gt "$1" ]; }

# Off by default; jobs without shared directories are what it is for.
restart_noded() { # LINE-FOR-FAVO.CONF
	node n1 "sed -i '/^warm_pool/d' /etc/favo/favo.conf; echo '$1' >>/etc/favo/favo.conf
		kill \$(pidof favo-noded); sleep 1
		for i in \$(seq 100); do [ -S /run/favo/noded.sock ] && pidof favo-noded >/dev/null && exit 0; sleep 0.2; done; exit 1"
}
trap 'restart_noded "" >/dev/null 2>&1 || :' EXIT
node n1 'rm -rf /var/lib/favo/warm'
restart_noded 'warm_pool = 2G'

before=$(log 'warm pool: snapshot .* made')
starts=$(log 'starts from snapshot')
expect "a first job starts" 0 one alice first
expect "a second one, too" 0 one alice second
expect "then the node makes a snapshot" 0 retry 150 made
expect "alice's third job runs" 0 one alice third
expect "bob's job runs" 0 one bob fourth
expect "both came from the snapshot" 0 used $((starts + 1))
cat "$out/third" "$out/fourth" >"$out/last"
if [ "$(cut -d' ' -f1-3 "$out/last" | paste -sd,)" = "alice on vm0,bob on vm0" ] &&
	[ "$(cut -d' ' -f5 "$out/last" | sort -u | wc -l)" = 2 ] &&
	[ "$(cut -d' ' -f7 "$out/last" | sort -u | wc -l)" = 2 ]; then
	ok "each is its own user's, with its own machine id and random numbers"
else
	not_ok "each is its own user's, with its own machine id and random numbers" "$(cat "$out/last")"
fi
node n1 'for f in /var/lib/favo/warm/*/state; do printf x | dd of="$f" bs=1 seek=3000 conv=notrunc 2>/dev/null; done'
expect "a damaged snapshot does not cost the job" 0 one alice fifth
expect "it says why it started cold" 0 node n1 'grep -q "checksum is wrong.*starts cold" /var/log/favo-noded.out'
