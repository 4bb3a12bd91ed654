#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# The plugin in a real Slurm without VMs: slurmctld and two slurmd on the
# loopback of namespaces of their own, a real favod, and stand-ins for
# favo-noded and favo-task that write down what they are asked.
# limit: 240
set -eu
. "$(dirname "$0")/../lib/build.sh"
skip() { echo "1..0 # SKIP $1"; exit 0; }
[ "$(id -u)" = 0 ] || skip "not root"
PATH=$PATH:/usr/sbin:/sbin
for program in slurmctld slurmd sbatch munged socat unshare setpriv; do
	command -v $program >/dev/null || skip "no $program"
done
build=${FAVO_BUILD:-$build_root/gcc}
if [ -z "${FAVO_TEST_INSIDE:-}" ]; then
	[ -n "${FAVO_BUILD:-}" ] || build_in gcc --enable-werror CC=gcc
	export FAVO_TEST_INSIDE=1
	exec unshare --net --uts --pid --ipc --mount --fork --mount-proc --kill-child "$0"
fi
. "$top/tests/lib/favod.sh"
plan 37

# ---- a site ----------------------------------------------------------------
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
mkdir -p "$d/run/job" "$d/libexec" "$d/state" "$d/spool" "$d/tmp" "$d/home" "$d/tree/bin"
mkdir -p "$d/modules"
chmod 755 "$d"/*
chmod 777 "$d/run" "$d/run/job" "$d/home" "$d/tmp"
favod_conf
chmod 644 "$FAVO_CONF"

# An image that nobody boots: a kernel that hangs, and no modules but built-in ones.
gcc -DHANG -nostdlib -static -no-pie -Wl,-Ttext-segment=0x100000,-z,max-page-size=4096 \
	-Wl,--build-id=none -o "$d/kernel" "$top/tests/system/payload.S" 2>"$d/gcc.log" ||
	fail "kernel: $(cat "$d/gcc.log")"
for module in virtio_pci vmw_vsock_virtio_transport virtio_blk erofs overlay; do
	echo "kernel/$module.ko"
done >"$d/modules/modules.builtin"
: >"$d/modules/modules.dep"
mkdir "$d/modules/6.1.0-test"
mv "$d/modules/modules.builtin" "$d/modules/modules.dep" "$d/modules/6.1.0-test"
"$build/provision/cli/favo" image import "$d/tree" --quiet --name tiny --kernel "$d/kernel" \
	--modules "$d/modules/6.1.0-test" >"$d/out" 2>&1 || fail "import: $(cat "$d/out")"
favod_start

ln -s "$build/slurm-plugin/favo-submit" "$d/libexec/favo-submit"
cat >"$d/libexec/favo-task" <<'END'
#!/bin/sh
program=${FAVO_TASK_ARGV0:-}
[ -n "$program" ] || { [ -n "$FAVO_STEP_MULTI_PROG" ] && program=$1 && shift; }
unset FAVO_TASK_ARGV0
echo "guest $SLURM_PROCID"
exec "$program" "$@"
END
cat >"$d/noded" <<END
#!/bin/sh
read -r line
printf '%s\n' "\$line" >>$d/asked
job=\$(printf '%s' "\$line" | sed 's/.*"job":\([0-9]*\).*/\1/')
case \$line in
*'"op":"prepare"'*) : >$d/run/job/\$job ;;
*'"op":"destroy"'*) rm -f $d/run/job/\$job ;;
esac
echo '{"ok":true}'
END
chmod 755 "$d/libexec/favo-task" "$d/noded"
: >"$d/asked"
noded_start() {
	socat "UNIX-LISTEN:$d/run/noded.sock,fork,mode=666" "EXEC:$d/noded" 2>>"$d/socat.log" &
	noded_pid=$!
	wait_until noded test -S "$d/run/noded.sock"
}
noded_start

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
PlugStackConfig=$d/plugstack.conf
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
PrologFlags=Alloc,Contain
SchedulerParameters=batch_sched_delay=0
KillOnBadExit=1
ReturnToService=2
NodeName=n1 NodeHostname=ctl NodeAddr=10.77.9.1 Port=17001 CPUs=2 RealMemory=1000
NodeName=n2 NodeHostname=ctl NodeAddr=10.77.9.1 Port=17002 CPUs=2 RealMemory=1000
PartitionName=debug Nodes=ALL Default=YES State=UP
END
sed -i 's/PrologFlags=Alloc,Contain/PrologFlags=Alloc/' "$d/slurm.conf"
plug() { echo "$1 $build/slurm-plugin/.libs/spank_favo.so libexec=$d/libexec run=$d/run" >"$d/plugstack.conf"; }
plug required
mkdir -p "$d/state/slurm"
export SLURM_CONF="$d/slurm.conf"
slurmctld -D >"$d/slurmctld.out" 2>&1 &
slurmd -D -N n1 >"$d/slurmd.out" 2>&1 &
slurmd -D -N n2 >>"$d/slurmd.out" 2>&1 &
two_idle() { [ "$(sinfo -h -t idle -o %D)" = 2 ]; }
wait_until "Slurm ($(tail -n1 "$d/slurmctld.log" 2>/dev/null))" two_idle

# user COMMAND-LINE: as a plain user; the output is in $d/out, the status printed.
user() {
	code=0
	timeout -k 2 "${limit:-30}" setpriv --reuid=1 --regid=1 --clear-groups env -i \
		PATH="$PATH" HOME="$d/home" SLURM_CONF="$SLURM_CONF" FAVO_CONF="$FAVO_CONF" \
		sh -c "cd $d/home; $1" >"$d/out" 2>&1 </dev/null || code=$?
}
# check NAME STATUS [LINE-PATTERN]
check() {
	[ "$code" = "$2" ] || fail "$1: status $code in place of $2: $(tail -n 5 "$d/out")"
	[ -z "${3:-}" ] || grep -qE -- "$3" "$d/out" || fail "$1: no line like $3: $(tail -n 5 "$d/out")"
	ok "$1"
}
nothing() { # NAME PATTERN: no line of the output
	! grep -qE -- "$2" "$d/out" || fail "$1: $(grep -E -- "$2" "$d/out" | head -n 3)"
	ok "$1"
}
asked() { grep -cE "$1" "$d/asked" || :; }
grants() { grep -c ' grant id=' "$d/favod.log" || :; }
quiet() { two_idle && [ -z "$(squeue -h)" ]; }
settle() { wait_until "an idle cluster" quiet; }

# ---- without the flag --------------------------------------------------------
user 'srun -N2 echo plain'
check "a plain srun" 0 '^plain$'
nothing "runs on the nodes" guest
user 'sbatch -W -o batch.out --wrap "srun echo plain" >/dev/null; cat batch.out'
check "a plain sbatch" 0 '^plain$'
[ ! -s "$d/asked" ] && [ "$(grants)" = 0 ] || fail "somebody was asked: $(cat "$d/asked")"
ok "asks neither favod nor favo-noded"

# ---- srun --------------------------------------------------------------------
user 'srun -N2 -K0 --vm-image=tiny sh -c "echo ran; exit 3"'
check "srun --vm-image keeps the exit code" 3 '^ran$'
check "its tasks run through favo-task" 3 '^guest 1$'
settle
job=$(sed -n 's/.*"op":"prepare","job":\([0-9]*\).*/\1/p' "$d/asked" | head -n 1)
[ "$(asked "\"op\":\"prepare\",\"job\":$job,.*\"uid\":1,\"gid\":1,\"nodelist\":\"n\[1-2\]\",\"node\":\"n[12]\",\"grant\":\"[^\"]*\\.")" = 2 ] ||
	fail "prepare: $(cat "$d/asked")"
ok "both prologs carry the grant"
[ "$(asked "\"op\":\"boot\",\"job\":$job,\"mem_mb\":[0-9]+,\"cores\":\"[0-9,-]+\",\"ncpus\":[12]\}")" = 2 ] ||
	fail "boot: $(cat "$d/asked")"
ok "the step's slurmstepds ask for the boot, with the allocation's shape"
[ "$(asked "\"op\":\"destroy\",\"job\":$job\}")" = 2 ] || fail "destroy: $(cat "$d/asked")"
ok "both epilogs end the cluster"
user 'srun --vm-image=tiny:latest --vm-cpus=1 --vm-mem=256M --vm-network=none echo "two  words" "" x'
check "words and blanks arrive" 0 '^two  words  x$'
user 'FAVO_VM_IMAGE=tiny srun echo from-env'
check "FAVO_VM_IMAGE is as good as the option" 0 '^guest 0$'
user 'seq 100000 | srun --vm-image=tiny md5sum'
check "standard input" 0 "$(seq 100000 | md5sum | cut -c1-32)"

# ---- sbatch, salloc -----------------------------------------------------------
before=$(grants)
cat >"$d/home/script" <<'END'
#!/bin/sh
#SBATCH --vm-image=tiny
echo script
srun echo step-one
srun -n2 echo step-two
END
user 'sbatch -W -N2 -o batch.out script >/dev/null; cat batch.out'
check "an #SBATCH line" 0 '^script$'
check "the script runs through favo-task, and its steps" 0 '^guest 1$'
[ "$(grants)" = $((before + 1)) ] || fail "$(($(grants) - before)) grants for one job"
ok "steps inside ask for no grant"
user 'sbatch -W --export=NONE -o batch.out --vm-image=tiny --wrap "echo script; srun echo step" >/dev/null; cat batch.out'
[ "$(grep -c '^guest' "$d/out")" = 2 ] || fail "--export=NONE: $(cat "$d/out")"
ok "--export=NONE changes nothing"
before=$(grants)
user 'salloc -Q --vm-image=tiny sh -c "srun echo step; echo here"'
check "salloc" 0 '^guest 0$'
check "and its shell stays on the host" 0 '^here$'
user 'salloc -Q --vm-image=tiny srun --vm-image=other true'
check "a step with another image" 1 'favo: the virtual machines of this allocation run tiny; a step cannot'
user 'salloc -Q srun --vm-image=tiny true'
check "a step with an image where there are no VMs" 1 'give --vm-image to salloc or sbatch'
[ "$(grants)" = $((before + 2)) ] || fail "a step asked for a grant"
ok "none of them asked for a grant of its own"

# ---- refused at submission -----------------------------------------------------
user 'srun --vm-image=tinny true'
check "an unknown image" 1 'srun: error: favo: there is no image "tinny"; did you mean tiny:latest\?'
user 'sbatch --vm-image=tiny --vm-network=nat --wrap true'
check "a network that is not there yet" 1 'sbatch: error: favo: --vm-network=nat is not in this version'
nothing "no job was made" Submitted
plug optional
user 'srun --vm-image=tinny echo ran-on-the-node'
check "the same with an optional plugin" 1 'there is no image'
nothing "does not run on the node" '^ran-on-the-node'
plug required
printf '# programs\n0 echo first  %%t\n1-2 echo second %%o\n' >"$d/home/multi.conf"
user 'srun -n3 --overcommit -l --vm-image=tiny --multi-prog multi.conf'
check "--multi-prog" 0 '^0: first 0$'
check "gives each rank its program" 0 '^2: second 1$'
check "and each runs through favo-task" 0 '^2: guest 2$'
user 'FAVO_STEP_MULTI_PROG=1 srun --vm-image=tiny echo ran-on-the-node'
nothing "a variable does not bring a task out of its VM" '^ran-on-the-node$'
settle

# ---- daemons down -----------------------------------------------------------------
favod_stop
user 'srun --vm-image=tiny true'
check "favod is down" 1 'srun: error: favo: favod does not answer, the job was not submitted'
user 'srun echo plain'
check "favod is down: plain jobs run" 0 '^plain$'
favod_start
settle
kill $noded_pid
rm -f "$d/run/noded.sock"
user 'srun -N2 echo plain'
check "favo-noded is down: plain jobs run" 0 '^plain$'
rm "$d/libexec/favo-task"
ln -s "$build/slurm-plugin/task/favo-task" "$d/libexec/favo-task"
user "srun --vm-image=tiny echo ran-on-the-node"
check "favo-noded is down: a job for VMs fails" 1 '^favo: .*noded'
nothing "and does not run on the node" '^ran-on-the-node'
settle
[ -z "$(sinfo -h -t drain,down,fail -o %N)" ] || fail "drained: $(sinfo -R -h)"
ok "no node was drained by any of this"
ls "$d/run/job" | grep -q '\.ended$' || fail "the epilog left no word for favo-noded"
ok "the epilog left word for favo-noded's next start"
