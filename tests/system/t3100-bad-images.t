#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# What is wrong with an image or its shape is told in one sentence, fails the
# job, and leaves the node in service and clean.
# limit: 600
set -eu
. "$(dirname "$0")/../lib/lab.sh"
need_favo
plan 34

# import NAME OPTION...: an image of a minimal tree, made on favod's host.
import() {
	import_name=$1
	shift
	login 60 "favo image import --name $import_name $* /home/alice/tree" root
}

# payload KIND: /home/alice/kernel-KIND
payload() {
	gcc -D"$1" -nostdlib -static -no-pie -Wl,-Ttext-segment=0x100000 \
		-Wl,-z,max-page-size=4096 -Wl,--build-id=none -Wl,-e,start \
		-o "$lab_dir/home/alice/kernel-$1" "$top/tests/system/payload.S"
}

release=$(ls "$lab_dir/guest-kernel/lib/modules")
tree=$lab_dir/home/alice/tree
rm -rf "$tree"
mkdir -p "$tree/bin" "$tree/etc" "$tree/proc" "$tree/sys" "$tree/dev" "$tree/tmp" "$tree/run"
cp "$(command -v busybox)" "$tree/bin/sh"
printf 'ID=test\nPRETTY_NAME="test tree"\n' >"$tree/etc/os-release"
cp -r "$lab_dir/guest-kernel/lib/modules/$release" "$lab_dir/home/alice/modules-$release"
modules="--modules /home/alice/modules-$release"
payload HANG
payload PANIC
cp "$lab_dir/guest-kernel/vmlinux" "$lab_dir/home/alice/kernel-linux"

# ---- names -------------------------------------------------------------
expect "an unknown image is refused at submission" 1 login 20 'srun -N1 --vm-image=debain12 true'
expect_line "the sentence names near images" 'debian12'
expect "sbatch refuses it too" 1 login 20 'sbatch --vm-image=nothing-like-it --wrap true'
expect_no_line "no job was made" 'Submitted'
expect "an unknown digest is refused" 1 login 20 \
	'srun -N1 --vm-image=debian12@sha256:0000000000000000000000000000000000000000000000000000000000000000 true'
expect "a bad memory size is refused" 1 login 20 'srun -N1 --vm-image=debian12 --vm-mem=lots true'
expect_line "and named" 'lots'

# ---- no kernel ---------------------------------------------------------
expect "an image without kernel is refused at import" 1 \
	login 60 "FAVO_CONF_SITE_KERNEL= favo image import --name nokernel /home/alice/tree" root
expect_line "with what to do" '(--kernel|site_kernel)'
expect "and does not exist afterwards" 1 login 20 'srun -N1 --vm-image=nokernel true'

# ---- kernels that do not come up -----------------------------------------
expect "an image with a hanging kernel imports" 0 import hang --kernel /home/alice/kernel-HANG "$modules"
expect "an image with a panicking kernel imports" 0 import panic --kernel /home/alice/kernel-PANIC "$modules"
expect "a file that is no kernel is refused" 1 import badkernel --kernel /etc/passwd "$modules"

expect "a guest kernel that panics fails the job" 1 login 90 'srun -N1 --vm-image=panic true'
expect_line "the sentence names node, VM and panic" '^favo: n[12]: vm0: .*panic'
expect "its console is there for the user" 0 login 20 'favo vc ls'
expect_clean "nothing is left of the panicked guest"

expect "a Linux that panics fails the job" 0 import nopivot --kernel /home/alice/kernel-linux \
	"$modules" --cmdline rdinit=/nowhere
expect "and says so" 1 login 120 'srun -N1 --vm-image=nopivot true'
expect_line "in the kernel's own words" '^favo: n[12]: vm0: .*(panic|No working init|not syncing)'

for n in $(nodes); do
	node "$n" 'cp /etc/favo/favo.conf /run/favo.conf.orig
		echo "boot_timeout = 8s" >>/etc/favo/favo.conf; pkill -x favo-noded' || :
done
retry 20 node n1 'test -S /run/favo/noded.sock'
expect "a guest that never comes up fails the job in time" 1 login 60 'srun -N1 --vm-image=hang true'
expect_line "the sentence says how long was waited" '^favo: n[12]: vm0: .*8 ?s'
expect "one task of many speaks" 1 login 60 'srun -N1 -n2 --vm-image=hang true'
if [ "$(grep -c '^favo: n[12]: vm0: ' "$out/last")" = 1 ]; then
	ok "once per node"
else
	not_ok "once per node" "$(cat "$out/last")"
fi
expect_clean "nothing is left of the hanging guest"
for n in $(nodes); do
	node "$n" 'cp /run/favo.conf.orig /etc/favo/favo.conf; pkill -x favo-noded' || :
done
retry 20 node n1 'test -S /run/favo/noded.sock'

# ---- memory ------------------------------------------------------------
expect "a good image runs" 0 login 200 'srun -N1 --vm-image=debian12 true'
expect "an allocation too small for a guest fails the job" 1 login 60 'srun -N1 --mem=50 --vm-image=debian12 true'
expect_line "the sentence says how much is needed" '^favo: n[12]: vm0: .*(MiB|MB| M)'
expect "more memory than the allocation is refused" 1 login 60 \
	'srun -N1 --mem=600 --vm-image=debian12 --vm-mem=2G true'

# ---- damaged bytes -------------------------------------------------------
expect "an image of its own imports" 0 import damaged --kernel /home/alice/kernel-PANIC "$modules"
newest=$(find "$lab_dir/favod/store/blobs" -type f -newer "$out/last" -size +1k | head -n 1)
: "${newest:=$(find "$lab_dir/favod/store/blobs" -type f -size +1k -printf '%T@ %p\n' | sort -rn | head -n 1 | cut -d' ' -f2)}"
cp "$newest" "$out/blob"
printf 'x' | dd of="$newest" bs=1 seek=100 conv=notrunc 2>/dev/null
expect "a damaged blob fails the job" 1 login 60 'srun -N1 --vm-image=damaged true'
expect_line "the sentence says that bytes are damaged" '^favo: n[12]: vm0: image: .*(damage|digest|corrupt|checksum)'
cp "$out/blob" "$newest"

expect_nodes_usable
expect_clean
login 60 'for i in hang panic nopivot damaged; do favo image rm $i; done' root >/dev/null || :
rm -rf "$tree" "$lab_dir/home/alice/modules-$release" "$lab_dir"/home/alice/kernel-*
