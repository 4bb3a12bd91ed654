#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Every block that a VM reads of its image is verified: bits flipped on the
# node's disk, before the start and behind a running VM's back.
# limit: 600
set -eu
. "$(dirname "$0")/../lib/lab.sh"
need_favo
plan 17

# verity WHEN: n1 verifies what its VMs read, or does not.
verity() {
	node n1 "sed -i 's/^image_verity.*/image_verity = $1/' /etc/favo/favo.conf
		pkill -9 -x favo-noded; sleep 0.5"
	retry 60 node n1 "favo doctor | grep -E '^this host +favo-noded +ok'"
}
trap 'exit_code=$?; verity never || :; [ $exit_code != 0 ] || exit $test_failed' EXIT
verity auto

tree=$lab_dir/home/alice/vtree
release=$(ls "$lab_dir/guest-kernel/lib/modules")
rm -rf "$tree" "$lab_dir/home/alice/vmodules"
mkdir -p "$tree/bin" "$tree/etc" "$tree/data"
for name in sh cat sleep true md5sum; do cp "$(command -v busybox)" "$tree/bin/$name"; done
mkdir -p "$lab_dir/home/alice/vmodules"
cp -r "$lab_dir/guest-kernel/lib/modules/$release" "$lab_dir/home/alice/vmodules/"
cp "$lab_dir/guest-kernel/vmlinux" "$lab_dir/home/alice/kernel-linux"
printf 'ID=test\nPRETTY_NAME="verity test"\n' >"$tree/etc/os-release"
# The mark stands in a block of its own in the middle.
{ head -c 4194304 /dev/zero | tr '\0' a; printf 'FAVO-TEST-MARK'; head -c 4194304 /dev/zero | tr '\0' b; } >"$tree/data/file"
want=$(md5sum <"$tree/data/file" | cut -d' ' -f1)

expect "an image with a verity tree is imported" 0 login 60 "favo image import --name verity-test \
	--kernel /home/alice/kernel-linux --modules /home/alice/vmodules/$release /home/alice/vtree" root
expect "a job reads its file" 0 login 120 'srun -N1 -w n1 --vm-image=verity-test md5sum /data/file'
expect_line "and gets the right bytes" "^$want"
expect_clean "the device is gone with its job"

# flip BYTE-OFFSET: one bit of root.img on n1; the page cache forgets what was clean.
image=$(login 20 'favo image ls --json' | jq -r '.images[]|select(.name=="verity-test").digest' | cut -d: -f2)
root=/var/lib/favo/cache/images/$image/root.img
flip() {
	node n1 "b=\$(od -An -tu1 -j$1 -N1 $root | tr -d ' ')
		printf \"\$(printf '\\\\%03o' \$((b ^ 1)))\" | dd of=$root bs=1 seek=$1 conv=notrunc 2>/dev/null
		sync; echo 3 >/proc/sys/vm/drop_caches"
}
mark=$(node n1 "grep -abo FAVO-TEST-MARK $root" | head -n 1 | cut -d: -f1)

# ---- behind a running VM's back ----------------------------------------------
job=$(login 20 'sbatch --parsable -N1 -w n1 --vm-image=verity-test --wrap "sleep 300"')
expect "a job holds a VM" 0 retry 90 login 20 "favo vc ls | grep -E '^ *$job .* ready '"
expect "its root is a verity device" 0 node n1 "cat /sys/block/dm-*/dm/name | grep -x 'favo-.*'"
flip "$mark"
expect "a flipped bit is an error for the guest" 1 login 60 "srun --jobid=$job --overlap cat /data/file"
expect_line "an I/O error" '(I/O error|Input/output error)'
if [ "$(grep -c bbbb "$out/last")" = 0 ]; then
	ok "and nothing from the block on"
else
	not_ok "and nothing from the block on"
fi
expect "what was not touched is read" 0 login 60 "srun --jobid=$job --overlap cat /etc/os-release"
login 20 "scancel $job"
expect "favod tells what happened, and where" 0 retry 60 login 20 \
	"favo vc show $job | grep 'copy is damaged.*root.img: content at byte'"
expect_clean "nothing is left"
expect "the next job fetches the image anew" 0 login 120 'srun -N1 -w n1 --vm-image=verity-test md5sum /data/file'
expect_line "and gets the right bytes again" "^$want"
retry 30 nothing_left || :

# ---- before a start --------------------------------------------------------------
flip 1030
expect "a damaged superblock fails the start" 1 login 120 'srun -N1 -w n1 --vm-image=verity-test true'
expect_line "with one sentence that says where" \
	"^favo: n1: .*image verity-test:latest: this node's copy is damaged.*root.img.*byte 0"
expect_clean "and leaves nothing"
