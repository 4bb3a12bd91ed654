#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# favo doctor: each thing that it checks is broken once, for real: MUNGE,
# favod, the plugin and its plugstack line, slurm.conf, PMIx, the node agent,
# /dev/kvm, the disk, the keys, a node's clock, version and silence.
# limit: 240
set -eu
. "$(dirname "$0")/../lib/build.sh"
skip() { echo "1..0 # SKIP $1"; exit 0; }
[ "$(id -u)" = 0 ] || skip "not root"
PATH=$PATH:/usr/sbin:/sbin
for program in slurmctld munged munge curl unshare jq sqlite3; do
	command -v $program >/dev/null || skip "no $program"
done
build=${FAVO_BUILD:-$build_root/gcc}
if [ -z "${FAVO_TEST_INSIDE:-}" ]; then
	[ -n "${FAVO_BUILD:-}" ] || build_in gcc --enable-werror CC=gcc
	export FAVO_TEST_INSIDE=1
	exec unshare --net --uts --pid --ipc --mount --fork --mount-proc --kill-child "$0"
fi
. "$top/tests/lib/favod.sh"
plan 26

hostname ctl
ip link set lo up
# A host with nothing but a loopback has no address for getaddrinfo(3).
ip link add site0 type veth peer name site1
ip address add 10.77.9.1/24 dev site0
ip link set site0 up
ip link set site1 up
d=$favod_dir
printf '127.0.0.1 localhost\n10.77.9.1 ctl\n' >"$d/hosts"
mount --bind "$d/hosts" /etc/hosts
munged_start
favod_conf
cat >>"$FAVO_CONF" <<END
vmm_path = $build/hypervisor/favo-vmm
init_path = $build/images/guest/favo-init
END
favod_start
noded_start() {
	"$build/provision/noded/favo-noded" --config "$FAVO_CONF" 2>>"$d/noded.log" &
	noded_pid=$!
	wait_until "favo-noded" test -S "$d/run/noded.sock"
}
mkdir -p "$d/state"
noded_start

mkdir -p "$d/state/slurm" "$d/conf.d"
slurm_conf() {
	cat >"$d/slurm.conf" <<-END
		ClusterName=test
		SlurmctldHost=ctl(10.77.9.1)
		SlurmUser=root
		AuthInfo=socket=$d/m/sock
		StateSaveLocation=$d/state/slurm
		SlurmctldPidFile=$d/slurmctld.pid
		SlurmctldLogFile=$d/slurmctld.log
		PlugStackConfig=$d/plugstack.conf
		ProctrackType=proctrack/${2:-cgroup}
		TaskPlugin=task/${3:-cgroup}
		JobAcctGatherType=jobacct_gather/none
		PrologFlags=$1
		NodeName=n1 NodeHostname=ctl NodeAddr=10.77.9.1 CPUs=2 RealMemory=1000
		PartitionName=debug Nodes=ALL Default=YES State=UP
	END
}
echo "CgroupPlugin=cgroup/v1" >"$d/cgroup.conf"
plugin=$build/slurm-plugin/.libs/spank_favo.so
echo "include $d/conf.d/*.conf" >"$d/plugstack.conf"
echo "optional $plugin" >"$d/conf.d/favo.conf"
slurm_conf Alloc,Contain
export SLURM_CONF="$d/slurm.conf"
slurmctld_pid=
ctld_stop() {
	[ -z "$slurmctld_pid" ] || kill "$slurmctld_pid"
	[ -z "$slurmctld_pid" ] || wait "$slurmctld_pid" || true
}
ctld_start() {
	ctld_stop
	slurmctld -D >"$d/slurmctld.out" 2>&1 &
	slurmctld_pid=$!
	wait_until "slurmctld" scontrol ping
}
ctld_start

doctor() {
	code=0
	"$build/provision/cli/favo" doctor "$@" >"$d/out" 2>&1 || code=$?
}
# line NAME CHECK RESULT WORDS: the table has such a line
line() {
	grep -E "^[^ ]+( host| on [^ ]+)? +$2 +$3 " "$d/out" | grep -qF -- "$4" ||
		fail "$1: no line '$2 $3 $4': $(cat "$d/out")"
	[ "$3" != FAILED ] || [ "$code" = 1 ] || fail "$1: status $code"
	ok "$1"
}
# ---- all is well, as far as it can be here ------------------------------------
doctor
line "MUNGE works" munge ok 'signs and checks'
line "favod answers" favod ok 'answers at'
line "slurmctld answers" slurmctld ok answers
line "the plugin is found through an include" plugin ok "$d/conf.d/favo.conf:1"
line "PrologFlags are right" PrologFlags ok Alloc
line "the node agent answers" favo-noded ok 'answers at'
line "the node's disk has room" disk ok left
line "the grant key is read" 'grant key' ok 'is a public key'
"$build/provision/cli/favo" doctor --json >"$d/json" || true
jq -e 'length > 12 and all(has("where") and has("check") and has("result") and has("what"))
	and all(.result != "FAILED" or has("remedy"))' "$d/json" >/dev/null || fail "--json: $(cat "$d/json")"
ok "--json has the same, and a remedy with each fault"

# ---- this host ------------------------------------------------------------------
mv "$d/m/sock" "$d/m/sock.away"
doctor
mv "$d/m/sock.away" "$d/m/sock"
line "MUNGE gone" munge FAILED 'systemctl restart munge'
favod_stop
doctor
line "favod gone" favod FAILED 'systemctl restart favod'
favod_start
echo 'no_such_key = 1' >"$d/bad.conf"
if FAVO_CONF=$d/bad.conf "$build/provision/cli/favo" doctor >"$d/out" 2>&1; then
	fail "a wrong configuration is taken"
fi
grep -q 'bad.conf:1: ' "$d/out" || fail "no file and line: $(cat "$d/out")"
ok "a wrong favo.conf is named with file and line"

# ---- Slurm ------------------------------------------------------------------------
echo "optional $d/nowhere/spank_favo.so" >"$d/conf.d/favo.conf"
doctor
line "a plugin that is not there" plugin FAILED "$d/conf.d/favo.conf:1 names $d/nowhere/spank_favo.so"
: >"$d/conf.d/favo.conf"
doctor
line "a plugstack.conf without the plugin" plugin FAILED 'does not name spank_favo.so'
printf 'const char plugin_name[] = "favo";\nconst unsigned int plugin_version = 0x170b00;\n' >"$d/other.c"
mkdir "$d/other"
gcc -shared -fPIC -o "$d/other/spank_favo.so" "$d/other.c"
echo "optional $d/other/spank_favo.so" >"$d/conf.d/favo.conf"
doctor
line "a plugin of another Slurm" plugin FAILED 'was built for Slurm 23.11'
echo "optional $plugin" >"$d/conf.d/favo.conf"
slurm_conf DeferBatch,Alloc linuxproc none
ctld_start
doctor
line "PrologFlags without Contain" PrologFlags - 'add Contain'
line "ProctrackType without cgroup" ProctrackType FAILED 'proctrack/cgroup'
line "TaskPlugin without cgroup" TaskPlugin - 'task/cgroup'
mkdir "$d/empty"
mount --bind "$d/empty" /usr/lib/x86_64-linux-gnu/pmix2/lib
doctor
umount /usr/lib/x86_64-linux-gnu/pmix2/lib
line "libpmix-dev missing" PMIx FAILED 'apt-get install libpmix-dev'
ctld_stop
slurmctld_pid=
doctor
line "slurmctld gone" slurmctld FAILED 'systemctl status slurmctld'

# ---- the node ---------------------------------------------------------------------
kill -9 "$noded_pid"
wait "$noded_pid" 2>/dev/null || true
doctor
line "the node agent gone" favo-noded FAILED 'systemctl restart favo-noded'
[ -e /dev/kvm ] || mknod /dev/kvm c 10 232
mount --bind /dev/null /dev/kvm
mount -t tmpfs -o size=64M tmpfs "$d/state/cache"
mv "$d/grant.pub" "$d/grant.pub.away"
rm "$d/run/noded.sock"
sed -i "s|^state_dir.*|state_dir = $d/state/cache|; s|^favod_url.*|favod_url = http://127.0.0.1:1|" "$FAVO_CONF"
noded_start
doctor
line "a /dev/kvm that runs no guest" kvm FAILED 'is no KVM device'
line "a disk that is full" disk FAILED 'smaller cache_size'
line "no public key" 'grant key' FAILED "copy it from favod's host"
kill -9 "$noded_pid"
wait "$noded_pid" 2>/dev/null || true
umount "$d/state/cache" /dev/kvm
rm "$d/run/noded.sock"
mv "$d/grant.pub.away" "$d/grant.pub"
sed -i "s|^state_dir.*|state_dir = $d/state|; s|^favod_url.*|favod_url = http://127.0.0.1:$favod_port|" "$FAVO_CONF"

# ---- what favod hears of nodes --------------------------------------------------------
version=$("$build/provision/cli/favo" --version | sed 's/.* //')
now=$(date +%s)000
put() {
	status=$(send POST "/v1/nodes/$1/report" "$2")
	[ "$status" = 200 ] || fail "report of $1: status $status: $(cat "$d/reply")"
}
put w1 "{\"version\":\"$version\",\"vms\":[],\"time_ms\":$now}"
put w2 "{\"version\":\"0.0.1\",\"vms\":[],\"time_ms\":$now}"
put w3 "{\"version\":\"$version\",\"vms\":[],\"time_ms\":$((now - 600000))}"
put w5 "{\"version\":\"$version\",\"vms\":[]}"
put w4 "{\"version\":\"$version\",\"vms\":[],\"checks\":[{\"check\":\"kvm\",\"result\":\"FAILED\",\"what\":\"no virtualization\",\"remedy\":\"firmware\"}]}"
sqlite3 "$d/state/favod/registry.db" \
	"PRAGMA busy_timeout=5000; UPDATE nodes SET updated = updated - 500 WHERE name = 'w5'" >/dev/null
doctor
for words in 'w2 .*FAILED .*0\.0\.1.*one version on all hosts' 'w3 .*clock .*behind.*NTP' 'w4 .*kvm .*no virtualization; firmware' \
	'w5 .*heard of it 5[0-9][0-9] s ago'; do
	grep -q "$words" "$d/out" || fail "no line like $words: $(cat "$d/out")"
done
! grep -q '^w1 ' "$d/out" || fail "w1 has no fault: $(cat "$d/out")"
ok "nodes of another version, with a wrong clock or a fault of their own are named"
doctor w4
grep -q 'w4 .*kvm .*FAILED' "$d/out" || fail "doctor w4: $(cat "$d/out")"
doctor nosuch
[ "$code" = 1 ] && grep -q 'no node nosuch has reported' "$d/out" || fail "doctor nosuch: $(cat "$d/out")"
ok "one node is shown, and one that nobody knows is named"
