#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Nodes and rollouts with a real favod and a real Slurm of four nodes in one
# machine. A node's reboot is a command of the site: it ends the node's slurmd,
# starts it anew and reports the image that favod gave it. A canary that fails
# its probe stops the rollout, undo brings the former image back, a good image
# reaches all, with jobs on a node and favod killed in the middle.
# limit: 300
set -eu
. "$(dirname "$0")/../lib/build.sh"
skip() { echo "1..0 # SKIP $1"; exit 0; }
[ "$(id -u)" = 0 ] || skip "not root"
PATH=$PATH:/usr/sbin:/sbin
for program in slurmctld slurmd sbatch munged unshare curl jq setpriv; do
	command -v $program >/dev/null || skip "no $program"
done
build=${FAVO_BUILD:-$build_root/gcc}
if [ -z "${FAVO_TEST_INSIDE:-}" ]; then
	[ -n "${FAVO_BUILD:-}" ] || build_in gcc --enable-werror CC=gcc
	export FAVO_TEST_INSIDE=1
	exec unshare --net --uts --pid --ipc --mount --fork --mount-proc --kill-child "$0"
fi
. "$top/tests/lib/favod.sh"
plan 23

# ---- a site ----------------------------------------------------------------
hostname ctl
ip link set lo up
# A host with nothing but a loopback has no address for getaddrinfo(3).
ip link add site0 type veth peer name site1
ip address add 10.77.9.1/24 dev site0
ip link set site0 up
ip link set site1 up
d=$favod_dir
favo=$build/provision/cli/favo
printf '127.0.0.1 localhost\n10.77.9.1 ctl\n' >"$d/hosts"
mount --bind "$d/hosts" /etc/hosts
munged_start
mkdir -p "$d/state/slurm" "$d/spool" "$d/tmp" "$d/tree"
chmod 777 "$d/tmp"
favod_conf
cat >>"$FAVO_CONF" <<END
rollout_reboot = $d/reboot %n %d
rollout_probe = $d/probe %n %d
END
chmod 644 "$FAVO_CONF"
gcc -DHANG -nostdlib -static -no-pie -Wl,-Ttext-segment=0x100000,-z,max-page-size=4096 \
	-Wl,--build-id=none -o "$d/kernel" "$top/tests/system/payload.S" 2>"$d/gcc.log" ||
	fail "kernel: $(cat "$d/gcc.log")"
mkdir -p "$d/modules/6.1.0-test"
for module in virtio_pci vmw_vsock_virtio_transport virtio_blk erofs overlay; do
	echo "kernel/$module.ko"
done >"$d/modules/6.1.0-test/modules.builtin"
: >"$d/modules/6.1.0-test/modules.dep"
for v in 1 2 3; do
	echo "$v" >"$d/tree/version"
	"$favo" image import "$d/tree" --quiet --name "node:v$v" --kernel "$d/kernel" \
		--modules "$d/modules/6.1.0-test" >"$d/out" 2>&1 || fail "import: $(cat "$d/out")"
done
digest() { "$favo" image ls --json | jq -r --arg tag "$1" '.images[] | select(.tag == $tag).digest'; }
favod_start
v1=$(digest v1) v2=$(digest v2) v3=$(digest v3)
[ -n "$v1" ] && [ -n "$v3" ] && [ "$v1" != "$v2" ] || fail "digests: $v1 $v2 $v3"
favod_stop

# report NODE DIGEST: what a node says once its image runs.
cat >"$d/report" <<END
#!/bin/sh
body="{\"digest\":\"\$2\",\"kernel\":\"6.1.0-test\",\"phase\":\"up\",\"boot_id\":\"\$(cat /proc/sys/kernel/random/uuid)\",\"boot_time\":\$(date +%s)}"
cred=\$(printf 'POST\n/v1/nodes/%s/report\n%s' "\$1" "\$(printf %s "\$body" | sha256sum | cut -d' ' -f1)" |
	munge --socket="$d/m/sock")
exec curl -sS -f -X POST -H "X-Favo-Munge: \$cred" --data-binary "\$body" \
	"http://127.0.0.1:$favod_port/v1/nodes/\$1/report"
END
# The node goes down at once and comes up later; it reports until it is heard.
cat >"$d/reboot" <<END
#!/bin/sh
echo "\$1" >>$d/reboots
setsid sh -c 'pid=\$(cat $d/slurmd-\$1.pid 2>/dev/null) && kill "\$pid"
	while kill -0 "\$pid"; do sleep 0.1; done
	slurmd -N "\$1"
	until $d/report "\$1" "\$2"; do sleep 0.3; done' boot "\$1" "\$2" >>$d/boot.log 2>&1 </dev/null &
END
cat >"$d/probe" <<END
#!/bin/sh
[ "\$2" != "$v2" ] || { echo "no link on ib0" >&2; exit 3; }
END
chmod 755 "$d/report" "$d/reboot" "$d/probe"
: >"$d/reboots"

cat >"$d/slurm.conf" <<END
ClusterName=test
SlurmctldHost=ctl(10.77.9.1)
SlurmUser=root
AuthInfo=socket=$d/m/sock
StateSaveLocation=$d/state/slurm
SlurmctldPidFile=$d/slurmctld.pid
SlurmctldLogFile=$d/slurmctld.log
SlurmdSpoolDir=$d/spool/%n
SlurmdPidFile=$d/slurmd-%n.pid
SlurmdLogFile=$d/slurmd-%n.log
TmpFS=$d/tmp
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0
ReturnToService=2
NodeName=n1 NodeHostname=ctl NodeAddr=10.77.9.1 Port=17001 CPUs=2 RealMemory=1000
NodeName=n2 NodeHostname=ctl NodeAddr=10.77.9.1 Port=17002 CPUs=2 RealMemory=1000
NodeName=n3 NodeHostname=ctl NodeAddr=10.77.9.1 Port=17003 CPUs=2 RealMemory=1000
NodeName=n4 NodeHostname=ctl NodeAddr=10.77.9.1 Port=17004 CPUs=2 RealMemory=1000
PartitionName=debug Nodes=ALL Default=YES State=UP
END
export SLURM_CONF="$d/slurm.conf"
favod_start
slurmctld -D >"$d/slurmctld.out" 2>&1 &
for n in 1 2 3 4; do slurmd -N n$n >>"$d/slurmd.out" 2>&1; done
idle() { [ "$(sinfo -h -N -o %t | grep -cx idle)" = "$1" ]; }
wait_until "Slurm" idle 4

# refused WHAT PATTERN COMMAND...
refused() {
	what=$1 pattern=$2
	shift 2
	if "$@" >"$d/out" 2>&1; then fail "$what: taken: $(cat "$d/out")"; fi
	grep -q -- "$pattern" "$d/out" || fail "$what: $(cat "$d/out")"
	ok "$what"
}
run() { "$@" >"$d/out" 2>&1 || fail "$*: $(cat "$d/out")"; }
node() { "$favo" node show --json "$1" | jq -r ".[0].$2"; }
slurm_state() { sinfo -h -N -n "$1" -o %T; }

# ---- nodes -----------------------------------------------------------------
refused "an image that does not exist" "there is no image nodes:v1; there is node:v1" \
	"$favo" node add 'n[1-4]' image=nodes:v1
[ "$("$favo" node export | jq '.nodes | length')" = 0 ] || fail "a refused node is there"
run "$favo" node add --profile compute image=node:v1 console=ttyS0,115200
run "$favo" node add 'n[1-4]' profiles=compute groups=rack1
run "$favo" node set n1 mac=52:54:00:00:00:01 tag.slot=7
refused "a MAC address twice" "belongs to node n1" "$favo" node set n2 mac=52-54-00-00-00-01
refused "a field that is none" "there is no field" "$favo" node set n2 imgae=node:v1
refused "a node that is none" "there is no node n5" "$favo" node set 'n[1-9]' image=node:v1
[ "$(node n3 effective.image)" = node:v1 ] || fail "the profile does not count: $(node n3 effective)"
run "$favo" node export
cp "$d/out" "$d/export.json"
run "$favo" node rm all
run "$favo" node import "$d/export.json"
run "$favo" node export
cmp -s "$d/out" "$d/export.json" || fail "not the same: $(cat "$d/out")"
ok "definitions come back from a file as they were"
cat >"$d/nodes.conf" <<END
nodeprofiles:
  ww: &x
    container name: rocky-9
    network devices: {default: {netmask: 255.255.255.0}}
nodes:
  w1:
    profiles: [ww]
    network devices:
      default: {hwaddr: 52:54:00:00:01:01, ipaddr: 10.1.0.1}
    kernel: {args: [quiet, crashkernel=no]}
END
run "$favo" node import --warewulf "$d/nodes.conf"
[ "$(node w1 'effective | .addresses[0] + " " + .kernel_args + " " + .tags.warewulf_image')" = \
	"10.1.0.1/24 quiet crashkernel=no rocky-9" ] || fail "w1: $("$favo" node show w1)"
printf 'nodes: [\n' >"$d/bad.conf"
refused "a nodes.conf that is no YAML" "bad.conf: line" "$favo" node import --warewulf "$d/bad.conf"
{
	echo 'a: &a [x, x, x, x, x, x, x, x, x]'
	before=a
	for level in b c d e f g h i; do
		echo "$level: &$level [*$before, *$before, *$before, *$before, *$before, *$before, *$before, *$before]"
		before=$level
	done
	echo 'nodes: {n1: {tags: *i}}'
} >"$d/bomb.conf"
refused "a nodes.conf that would fill the memory" "too much of it" \
	timeout 20 "$favo" node import --warewulf "$d/bomb.conf"
run "$favo" node rm w1
cat >"$d/editor" <<'END'
#!/bin/sh
sed -i 's/"rack1"/"rack2"/' "$1"
END
chmod 755 "$d/editor"
VISUAL="$d/editor" "$favo" node edit n4 >"$d/out" 2>&1 || fail "edit: $(cat "$d/out")"
[ "$(node n4 effective.groups[0])" = rack2 ] || fail "edit did nothing"
ok "nodes of Warewulf, and nodes in an editor"

for n in 1 2 3 4; do run "$d/report" "n$n" "$v1"; done
[ "$(node n2 reboot) $(node n2 phase)" = "same up" ] || fail "$("$favo" node ls)"
run "$favo" node set n2 image=node:v2
[ "$(node n2 reboot)" = change ] || fail "$("$favo" node ls)"
run "$favo" node set n2 image=
[ "$(node n2 reboot)" = same ] || fail "$("$favo" node ls)"
ok "favo node ls tells what a reboot would change"
setpriv --reuid=1 --regid=1 --clear-groups env "FAVO_CONF=$FAVO_CONF" \
	"$favo" rollout start node:v2 n1 >"$d/out" 2>&1 && fail "a user may roll out"
grep -q "may not roll images out" "$d/out" || fail "a user: $(cat "$d/out")"
ok "users do not roll images out"

# ---- a bad image -----------------------------------------------------------
run "$favo" rollout plan node:v2 'n[1-4]' --batch 2
grep -q "4 of 4 nodes reboot, in 3 waves" "$d/out" || fail "plan: $(cat "$d/out")"
[ ! -s "$d/reboots" ] && idle 4 || fail "plan did something"
ok "a plan changes nothing"
refused "a probe without a path" "path of a program" "$favo" rollout start --probe sh node:v2 n1
if timeout 90 "$favo" rollout start node:v2 'n[1-4]' --batch 2 --wait >"$d/out" 2>&1; then
	fail "a bad image reached all: $(cat "$d/out")"
fi
grep -q "canary n1 failed: probe: .*no link on ib0" "$d/out" || fail "stop: $(cat "$d/out" "$d/favod.log")"
ok "a canary that fails its probe stops the rollout, with the reason"
[ "$(cat "$d/reboots")" = n1 ] || fail "rebooted: $(cat "$d/reboots")"
[ "$(node n2 effective.image)" = node:v1 ] || fail "n2 was changed"
idle 3 || fail "$(sinfo -N)"
ok "the other nodes still work, with their image"
sinfo -R -h -o %E -n n1 | grep -q "favo rollout 1: probe" || fail "reason: $(sinfo -R)"
case $(slurm_state n1) in drain*) ;; *) fail "n1 is $(slurm_state n1)" ;; esac
ok "the canary is drained, and sinfo -R says why"
timeout 90 "$favo" rollout undo 1 --wait >"$d/out" 2>&1 || fail "undo: $(cat "$d/out" "$d/favod.log")"
[ "$(node n1 booted)" = "$v1" ] || fail "n1 runs $(node n1 booted)"
wait_until "n1 in Slurm" idle 4
ok "undo brings the former image back, and the node to Slurm"
refused "undo twice" "is undone by rollout 2" "$favo" rollout undo 1

# ---- a good image, jobs, and a favod that is killed -------------------------
: >"$d/reboots"
sbatch --quiet -w n2 -D "$d/tmp" -o "$d/tmp/job.out" --wrap "until test -e $d/tmp/go; do sleep 0.2; done; echo whole" ||
	fail "sbatch"
job_runs() { [ "$(squeue -h -w n2 -o %T)" = RUNNING ]; }
wait_until "the job" job_runs
run "$favo" rollout start node:v3 'n[1-4]' --batch 3 --budget 1
refused "a node of another rollout" "is in rollout 3" "$favo" rollout start node:v2 n4
step() { "$favo" rollout status 3 --json | jq -r ".nodes[] | select(.name == \"$1\").step"; }
at_step() { [ "$(step "$1")" = "$2" ]; }
kill_favod() {
	kill -9 "$favod_pid"
	wait "$favod_pid" 2>/dev/null || true
	favod_start
}
booting() { at_step n1 booting || at_step n1 health; }
wait_until "the canary's boot" booting
kill_favod
wait_n=0
until at_step n2 draining; do
	wait_n=$((wait_n + 1))
	[ $wait_n -lt 400 ] || fail "n2: $("$favo" rollout status 3; tail -n 20 "$d/favod.log")"
	sleep 0.1
done
kill_favod
[ "$("$favo" rollout status 3 --json | jq -r '.nodes[1].note' | grep -c "^job . \|^$")" = 1 ] ||
	fail "note: $("$favo" rollout status 3)"
! grep -qx n2 "$d/reboots" || fail "n2 was rebooted under its job"
ok "a node with a job is drained, not rebooted"
run "$favo" rollout pause 3
released() { at_step n2 waiting; }
wait_until "pause to give n2 back" released
job_runs || fail "the job is gone"
ok "a pause gives back what was not rebooted"
run "$favo" rollout resume 3
touch "$d/tmp/go"
timeout 120 "$favo" rollout status 3 --wait >"$d/out" 2>&1 ||
	fail "rollout: $(cat "$d/out"; tail -n 40 "$d/favod.log")"
[ "$(cat "$d/tmp/job.out")" = whole ] || fail "the job was cut off: $(cat "$d/tmp/job.out")"
ok "the job ended by itself, and the rollout is done"
wait_until "all nodes in Slurm" idle 4
for n in 1 2 3 4; do
	[ "$(node n$n booted) $(node n$n reboot)" = "$v3 same" ] || fail "n$n: $("$favo" node ls)"
done
[ "$(sort -u "$d/reboots" | wc -l)" = 4 ] || fail "reboots: $(cat "$d/reboots")"
[ -z "$(scontrol show reservation -o | grep favo-)" ] || fail "a reservation is left"
ok "favod killed twice: every node runs the image and is idle"

favod_stop
ok "favod ends cleanly"
