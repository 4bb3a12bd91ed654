# SPDX-License-Identifier: GPL-2.0-or-later
# Shell helpers: a source and nodes in network namespaces of their own on one
# bridge, each with a link of limited rate in both directions. Sourced by
# tests/bench/fanout and tests/system/t0170-swarm.t. Number 0 is the source.

net_id=fs$$
net_made=

# net_make NODES RATE ("100mbit")
net_make() {
	net_made=$1
	ip netns add "$net_id-br"
	ip -n "$net_id-br" link add br0 type bridge
	ip -n "$net_id-br" link set br0 up
	net_i=0
	while [ "$net_i" -le "$1" ]; do
		ip netns add "$net_id-$net_i"
		ip -n "$net_id-$net_i" link set lo up
		ip link add "e$net_i" netns "$net_id-$net_i" type veth \
			peer name "p$net_i" netns "$net_id-br"
		ip -n "$net_id-$net_i" addr add "$(net_address "$net_i")/24" dev "e$net_i"
		ip -n "$net_id-br" link set "p$net_i" master br0
		ip -n "$net_id-$net_i" link set "e$net_i" up
		ip -n "$net_id-br" link set "p$net_i" up
		net_rate "$net_i" "$2"
		net_i=$((net_i + 1))
	done
}

net_address() { if [ "$1" = 0 ]; then echo 10.77.0.1; else echo "10.77.0.$((10 + $1))"; fi; }

# net_rate NODE RATE: the same up and down.
net_rate() {
	tc -n "$net_id-$1" qdisc replace dev "e$1" root tbf rate "$2" burst 128k latency 30ms
	tc -n "$net_id-br" qdisc replace dev "p$1" root tbf rate "$2" burst 128k latency 30ms
}

# net_run NODE COMMAND...: as that node, in place of this shell's child.
net_run() {
	net_node=$1
	shift
	exec ip netns exec "$net_id-$net_node" "$@"
}

net_sent() { ip netns exec "$net_id-$1" cat "/sys/class/net/e$1/statistics/tx_bytes"; }

# Whatever still runs in the namespaces ends, then they go.
net_remove() {
	[ -n "$net_made" ] || return 0
	for net_i in $(seq 0 "$net_made") br; do
		for net_pid in $(ip netns pids "$net_id-$net_i" 2>/dev/null); do
			kill -9 "$net_pid" 2>/dev/null || true
		done
		ip netns del "$net_id-$net_i" 2>/dev/null || true
	done
	net_made=
}

# swarm_neighbours NODE NODES: for peer-tool, ring and chords as favod names
# them; every node of the first 12 has the source.
swarm_neighbours() {
	awk -v self="$1" -v n="$2" 'BEGIN {
		if (self <= 12) printf "source=10.77.0.1:7413 "
		split("1 " int(n / 2) " " int(n / 4), step, " ")
		for (k = 1; k <= 3; k++) {
			to = (self - 1 + step[k]) % n + 1
			if (step[k] > 0 && to != self && !(to in seen))
				printf "n%d=10.77.0.%d:7412 ", to, 10 + to
			seen[to] = 1
		}
	}'
}
