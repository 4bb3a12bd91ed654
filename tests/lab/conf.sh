# SPDX-License-Identifier: GPL-2.0-or-later
# The configuration files of a lab, for its login host and its nodes.

LAB_NET=10.77.0
LAB_EXEC_PORT=1023
NODE_CPUS=${FAVO_LAB_NODE_CPUS:-2}
# Emulated nodes get one processor, whatever Slurm is told: with two, QEMU's TCG
# locks up now and then when guests run in the node.
NODE_VCPUS=${FAVO_LAB_NODE_VCPUS:-1}
NODE_MEM=${FAVO_LAB_NODE_MEM:-4096}

# n1, n2 ... have a root of the lab's; b1, b2 ... are bare and boot over the network.
node_address() {
	case $1 in
	b*) echo "$LAB_NET.$((100 + ${1#b}))" ;;
	*) echo "$LAB_NET.$((10 + ${1#n}))" ;;
	esac
}
BARE_MEM=${FAVO_LAB_BARE_MEM:-2048}

# write_keys: made once per lab directory; nobody but root reads them.
write_keys() {
	local dir=$LAB/keys
	(
		umask 077
		mkdir -p "$dir"
		[ -s "$dir/munge.key" ] || head -c 1024 /dev/urandom >"$dir/munge.key"
		[ -s "$dir/exec.token" ] ||
			head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$dir/exec.token"
		[ -s "$dir/grant.key" ] || openssl genpkey -algorithm ed25519 -out "$dir/grant.key"
	)
	[ -s "$dir/grant.pub" ] ||
		openssl pkey -in "$dir/grant.key" -pubout -out "$dir/grant.pub"
}

write_slurm_conf() {
	local dir=$1 nodes=$2 i
	mkdir -p "$dir"
	cat >"$dir/slurm.conf" <<END
ClusterName=lab
SlurmctldHost=ctl($LAB_NET.1)
SlurmUser=slurm
StateSaveLocation=/var/lib/slurm/slurmctld
SlurmctldPidFile=/run/slurmctld.pid
SlurmctldLogFile=/var/log/slurm/slurmctld.log
SlurmdSpoolDir=/var/spool/slurmd
SlurmdPidFile=/run/slurmd.pid
SlurmdLogFile=/var/log/slurm/slurmd.log
SlurmdDebug=info
PlugStackConfig=/etc/slurm/plugstack.conf
ProctrackType=proctrack/cgroup
TaskPlugin=task/cgroup
SlurmdParameters=config_overrides
JobAcctGatherType=jobacct_gather/cgroup
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=1024
PrologFlags=Alloc,Contain,DeferBatch
SchedulerParameters=batch_sched_delay=0,nohold_on_prolog_fail
MpiDefault=pmix
KillOnBadExit=1
ReturnToService=2
KillWait=5
MailProg=/bin/true
END
	for ((i = 1; i <= nodes; i++)); do
		echo "NodeName=n$i NodeAddr=$LAB_NET.$((10 + i)) CPUs=$NODE_CPUS Boards=1" \
			"SocketsPerBoard=1 CoresPerSocket=$NODE_CPUS ThreadsPerCore=1" \
			"RealMemory=$((NODE_MEM - 500))"
	done >>"$dir/slurm.conf"
	for ((i = 1; i <= ${LAB_BARE:-0}; i++)); do
		echo "NodeName=b$i NodeAddr=$(node_address "b$i") CPUs=1 RealMemory=$((BARE_MEM - 600))"
	done >>"$dir/slurm.conf"
	echo "PartitionName=debug Nodes=ALL Default=YES State=UP" >>"$dir/slurm.conf"
	cat >"$dir/cgroup.conf" <<END
CgroupPlugin=cgroup/v1
ConstrainCores=no
ConstrainRAMSpace=yes
END
	echo "PMIxEnv=PMIX_MCA_gds=hash;PMIX_MCA_psec=native" >"$dir/mpi.conf"
	: >"$dir/plugstack.conf"
	[ ! -f "$LAB/install/opt/favo/lib/favo/spank_favo.so" ] ||
		echo "required /opt/favo/lib/favo/spank_favo.so" >"$dir/plugstack.conf"
}

write_hosts() {
	local i
	printf '127.0.0.1 localhost\n%s.1 ctl\n' "$LAB_NET"
	for ((i = 1; i <= $1; i++)); do echo "$LAB_NET.$((10 + i)) n$i"; done
	for ((i = 1; i <= ${LAB_BARE:-0}; i++)); do echo "$(node_address "b$i") b$i"; done
}

# Paths are those of the login host.
# Verified reads cost an emulated processor seconds at each start: one test of
# their own has them on (t3110).
write_favo_conf() {
	cat <<END
favod_url = http://ctl:7411
favod_listen = 0.0.0.0:7411
image_verity = never
END
	[ "${LAB_BARE:-0}" = 0 ] || cat <<END
netboot = yes
boot_interface = lab0
boot_range = $LAB_NET.200-$LAB_NET.220
image_trust = signed
END
	[ ! -d "$LAB/guest-kernel" ] || cat <<END
site_kernel = /mnt/lab/guest-kernel/vmlinux
site_modules = /mnt/lab/guest-kernel/lib/modules/$(ls "$LAB/guest-kernel/lib/modules")
END
}

# write_etc DIR NODES: what login host and nodes have in common below /etc.
write_etc() {
	rm -rf "$1"
	mkdir -p "$1/munge" "$1/favo"
	chmod 700 "$1/munge"
	write_slurm_conf "$1/slurm" "$2"
	write_hosts "$2" >"$1/hosts"
	write_favo_conf >"$1/favo/favo.conf"
	cp -p "$LAB/keys/grant.pub" "$1/favo/grant.pub"
	cp -p "$LAB/keys/munge.key" "$1/munge/munge.key"
	[ "${LAB_BARE:-0}" = 0 ] || write_bare_files "$1/favo/netboot" "$2"
	printf 'export PATH=/opt/favo/bin:/opt/favo/sbin:$PATH\n' >"$1/favo/profile"
}

# write_bare_files DIR: what bare nodes get from favod when they boot.
write_bare_files() {
	local dir=$1 etc=$1/files/all/etc
	mkdir -p "$etc/slurm" "$dir/secrets/all/etc/munge"
	# Systemd's control groups and no plugins: the image is not the lab's own root.
	sed -e '/^PlugStackConfig\|^PrologFlags\|^MpiDefault\|^JobAcctGather\|^SlurmdParameters/d' \
		-e 's|^ProctrackType=.*|ProctrackType=proctrack/linuxproc|' \
		-e 's|^TaskPlugin=.*|TaskPlugin=task/none|' \
		"$LAB/ctl/etc/slurm/slurm.conf" >"$etc/slurm/slurm.conf"
	write_hosts "$2" >"$etc/hosts"
	mkdir -p "$etc/tmpfiles.d"
	printf 'd /var/log/munge 0700 munge munge\n' >"$etc/tmpfiles.d/munge.conf"
	printf 'node {{name}} at {{address}}\n' >"$etc/favo-node.tmpl"
	cp -p "$LAB/keys/munge.key" "$dir/secrets/all/etc/munge/munge.key"
	chown munge:munge "$dir/secrets/all/etc/munge/munge.key"
	chmod 400 "$dir/secrets/all/etc/munge/munge.key"
	write_bare_noded "$dir/files/all"
}

# write_bare_noded DIR: favo-noded, by which a bare node says that it is up. favod
# gives regular files only, so that a drop-in wants the unit, not a link.
write_bare_noded() {
	local from=$LAB/install/opt/favo etc=$1/etc
	[ -x "$from/sbin/favo-noded" ] || return 0
	mkdir -p "$1/opt/favo/sbin" "$etc/favo" "$etc/systemd/system/multi-user.target.d"
	strip -o "$1/opt/favo/sbin/favo-noded" "$from/sbin/favo-noded"
	cp "$from/lib/systemd/system/favo-noded.service" "$etc/systemd/system/"
	printf '[Unit]\nWants=favo-noded.service\n' >"$etc/systemd/system/multi-user.target.d/favo.conf"
	grep -v '^site_\|^netboot\|^boot_' "$LAB/ctl/etc/favo/favo.conf" >"$etc/favo/favo.conf"
	cp "$LAB/ctl/etc/favo/grant.pub" "$etc/favo/"
}

# write_node NAME DIR: the node's own part of its initramfs.
write_node() {
	local name=$1 dir=$2
	rm -rf "$dir"
	mkdir -p "$dir/node/files/lab" "$dir/node/files/opt/favo-demo"
	cp -a "$LAB/ctl/etc" "$dir/node/files/etc"
	cp -p "$LAB/keys/exec.token" "$dir/node/files/lab/exec.token"
	cat >"$dir/node/config" <<END
hostname $name
modprobe virtio_net 9pnet_virtio 9p ext4 kvm_amd vhost_net vhost_vsock loop dm_verity tun vxlan bridge br_netfilter
address $(node_address "$name")
disk favo /opt/favo erofs
disk scratch /var/lib/favo ext4
share log /var/log
share home /home
run /bin/mkdir -p /run/munge /run/favo /var/log/slurm /var/log/favo /var/spool/slurmd /var/lib/slurm
service munged /usr/sbin/munged -F --key-file=/etc/munge/munge.key --log-file=/var/log/munged.log --seed-file=/run/munge/seed
service slurmd /usr/sbin/slurmd -D
service favo-noded /opt/favo/sbin/favo-noded
service node-exec /lab/node-exec serve $LAB_EXEC_PORT /lab/exec.token
END
}
