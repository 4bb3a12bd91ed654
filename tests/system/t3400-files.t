#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# The user's files are in the guest, under the same names and with his rights
# only: home and working directory, --vm-mount, read-only, sandbox.
# limit: 500
set -eu
. "$(dirname "$0")/../lib/lab.sh"
need_favo
plan 31
vm='--vm-image=debian12'
lab_home=$lab_dir/home

login 20 'rm -rf files; mkdir -p files/in files/out; echo data >files/in/set; echo mine >files/secret; chmod 600 files/secret' >/dev/null
install -d -m 700 -o 1001 -g 1001 "$lab_home/bob/private"

expect "a mount of what is not a path" 1 login 30 "srun -N1 $vm --vm-mount=data:/x true"
expect_line "is refused with a reason" "'data' is not an absolute path"
expect "a mount over the guest's own" 1 login 30 "srun -N1 $vm --vm-mount=/home/alice:/proc true"
expect_line "is refused with a reason" "/proc in the guest is the guest's own"
expect "a mount in a sandbox" 1 login 30 "srun -N1 $vm --vm-sandbox --vm-mount=/home/alice true"
expect_line "is refused with a reason" 'a sandbox sees no files'

cat >"$lab_home/alice/files/job.sh" <<'END'
#!/bin/sh
pwd
umask
cat in/set
echo result >out/result
cat /input/set
echo no >/input/no
echo rc=$?
touch started
while [ ! -e stop ]; do sleep 0.2; done
END
login 60 "cd files && umask 027 && sbatch --parsable -N1 -o out/%j.txt $vm --vm-mount=\$PWD/in:/input:ro job.sh" >"$out/job"
job=$(cat "$out/job")
started() { [ -e "$lab_home/alice/files/started" ]; }
expect "a job with relative paths" 0 retry 200 started
step() { login 60 "srun --jobid=$job --overlap -n1 $1"; }

expect "a file server" 0 node n1 "ps -eo user:12,args; cat /proc/\$(pgrep -o virtiofsd)/cgroup"
expect_line "belongs to the job's user" '^(alice|1000) +virtiofsd'
expect_line "and to the job's cgroup" "job_$job"
expect "a task in another directory of home" 0 login 60 "cd files/in && srun --jobid=$job --overlap -n1 sh -c 'pwd; cat set'"
expect_line "starts there" '^/home/alice/files/in$'
expect "what another user keeps to himself" 2 step 'ls /home/bob/private'
expect "a file's mode" 0 step "stat -c %a files/secret"
expect_line "is the node's" '^600$'
expect "files made on the login host" 0 login 60 "touch files/stop; for i in \$(seq 300); do squeue -h -j $job | grep -q . || exit 0; sleep 0.2; done; exit 1"
expect "the job's output" 0 login 20 "cd files && cat out/$job.txt out/result && stat -c %a out/result"
expect_line "is where it was told" '^/home/alice/files$'
expect_line "read-only is enforced" '^rc=[1-9]'
expect_line "files written in the guest are there" '^result$'
expect_line "with the job's umask" '^640$'

expect "a directory that the user may not enter" 1 login 150 "srun -N1 $vm --vm-mount=/home/bob/private:/x true"
expect_line "fails the job with a reason" 'vm0: boot: /home/bob/private: Permission denied; check --vm-mount'

rm -f "$lab_home/alice/files/started"
job=$(login 60 "sbatch --parsable -N1 -w n1 -o kill.out $vm --wrap 'touch files/started; sleep 600'")
gone() { ! login 20 "squeue -h -j $job" | grep -q .; }
expect "a job with files" 0 retry 150 started
expect "the death of its file server" 0 node n1 'pkill -KILL virtiofsd'
expect "ends the job" 0 retry 60 gone
expect "with a reason" 0 grep -q 'vm0: task: file server of /home/alice ended (signal 9)' "$lab_home/alice/kill.out"

expect "a sandbox" 0 login 200 "srun -N1 $vm --vm-sandbox sh -c 'ls -A \$HOME | wc -l; squeue || echo refused'"
expect_line "has an empty home" '^0$'
expect_line "and no Slurm" '^refused$'
expect_clean
