# SPDX-License-Identifier: GPL-2.0-or-later
# Debian packages of the outer machine; the list is packages.host.

packages_missing() {
	local list
	list=$(grep -v '^#' "$TOP/tests/lab/packages.host")
	# shellcheck disable=SC2086 # one word per package is meant
	dpkg-query -W -f '${db:Status-Status} ${Package}\n' $list 2>/dev/null |
		sed -n 's/^installed //p' | sort -u >"$LAB/run.packages"
	printf '%s\n' "$list" | sort -u | comm -23 - "$LAB/run.packages" | paste -sd' '
	rm -f "$LAB/run.packages"
}

# Services are not to start: the lab runs its own, in its own namespaces.
install_packages() {
	local deny=
	if [ ! -e /usr/sbin/policy-rc.d ]; then
		printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
		chmod +x /usr/sbin/policy-rc.d
		deny=1
	fi
	export DEBIAN_FRONTEND=noninteractive
	apt-get update || return
	apt-get install -y --no-install-recommends "$@" || return
	[ -z "$deny" ] || rm -f /usr/sbin/policy-rc.d
}

ensure_packages() {
	local missing
	missing=$(packages_missing)
	[ -n "$missing" ] || return 0
	[ "$(id -u)" = 0 ] || fail "these Debian packages are missing and only root can install them:" \
		"$missing"
	say "  missing packages: $missing"
	# shellcheck disable=SC2086 # one word per package is meant
	step "packages" "$LAB/logs/packages.log" install_packages $missing
}
