#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# limit: 120
# Who may run which images: rules of names and repositories, by user and group,
# and the ways around them that are closed. Needs root (to be several users), no
# lab and no Slurm.
set -eu
. "$(dirname "$0")/../lib/build.sh"
build=${FAVO_BUILD:-$build_root/gcc}
[ -n "${FAVO_BUILD:-}" ] || build_in gcc --enable-werror CC=gcc
. "$top/tests/lib/favod.sh"
[ "$(id -u)" = 0 ] || { echo "1..0 # SKIP only root can be several users"; exit 0; }

munged_start
favod_conf
plan 12
favo=$build/provision/cli/favo
d=$favod_dir
echo 'image_admins = sys' >>"$d/favo.conf"
favod_start
for name in one two; do
	mkdir -p "$d/$name/bin"
	head -c 100000 /dev/urandom >"$d/$name/bin/random"
done
python3 "$top/tests/lib/ociimage.py" kernel "$d/k"

import() {
	"$favo" image import --quiet --kernel "$d/k/vmlinux" --modules "$d/k/modules/6.1.0-test" "$@" \
		2>"$d/err" || fail "import $*: $(cat "$d/err")"
}
one=$(import --name chem/app:v1 "$d/one")
import --name open "$d/two" >"$d/out"

# as USER COMMAND...: users of every Debian, in their own groups only
as() {
	as_user=$1
	shift
	setpriv --reuid="$as_user" --regid="$as_user" --init-groups env HOME=/nonexistent TMPDIR="$d/$as_user" "$@"
}
for user in bin games sys; do
	mkdir "$d/$user" && chown "$user" "$d/$user"
done

# may USER IMAGE: favod gives a grant
may() {
	as "$1" "$build/slurm-plugin/favo-submit" --vm-image="$2" >"$d/out" 2>"$d/err" || :
	tail -n 1 "$d/out" | grep -q '^grant ' || fail "$1, $2: $(cat "$d/out" "$d/err")"
}

# may_not USER IMAGE SENTENCE
may_not() {
	as "$1" "$build/slurm-plugin/favo-submit" --vm-image="$2" >"$d/out" 2>"$d/err" || :
	! grep -q '^grant ' "$d/out" || fail "$1 may run $2"
	grep -qF -- "$3" "$d/out" || fail "no '$3' in: $(cat "$d/out")"
}

# refused SENTENCE COMMAND...
refused() {
	refused_sentence=$1
	shift
	! "$@" >"$d/out" 2>&1 || fail "not refused: $*"
	grep -qF -- "$refused_sentence" "$d/out" || fail "no '$refused_sentence' in: $(cat "$d/out")"
}

may bin chem/app:v1
may games open
ok "without a rule everybody may run everything"
"$favo" image allow chem/app bin || fail "allow"
may bin chem/app:v1
may_not games chem/app:v1 "games may not run chem/app:v1: the rule of chem/app allows bin; ask root"
ok "a rule names its users; the refusal says who, which rule, and whom to ask"
"$favo" image allow chem/app @games
may games chem/app:v1
may_not bin chem/app:v1 "allows @games"
ok "and groups"
"$favo" image allow chem/ bin
may_not bin chem/app:v1 "the rule of chem/app allows @games"
import --name chem/other "$d/two" >"$d/out"
may bin chem/other
may_not games chem/other "the rule of chem/ allows bin"
ok "a rule of a repository counts where a name has none of its own"
may games open
ok "the same content under an open name stays open"
may_not bin "chem/app@$one" "may not run"
may_not bin "open@$one" "the rule of chem/app allows @games"
may games "open@$one"
ok "another name with the image's digest is no way around the rule"
"$favo" image tag open chem/app:v1
may_not bin "open@$one" "the rule of chem/app allows @games"
ok "nor is a digest that the tag had before"
refused "chem/app is restricted by a rule" as games "$favo" image tag "chem/app@$one" games/mine
refused "chem/app is restricted by a rule" as bin "$favo" image tag "chem/app@$one" bin/mine
as sys "$favo" image tag "chem/app@$one" public || fail "an image admin cannot tag"
may bin public
ok "users give restricted images no other name; admins do"
refused "is not yours" as games "$favo" image allow chem/app games
refused "is not yours" as games "$favo" image allow open games
as games "$favo" image tag open games/mine
as games "$favo" image allow games/mine bin || fail "games cannot rule games/mine"
may games games/mine
may bin games/mine
may_not sys games/mine "allows bin; ask games"
ok "owners rule over their own images, and always may run them"
refused "neither USER nor @GROUP" "$favo" image allow chem/app 'a b'
refused "leave the tag away" "$favo" image allow chem/app:v1 bin
refused "a name is missing" "$favo" image allow chem/app bin,
ok "rules that mean nothing are refused"
"$favo" image rules --json chem/app >"$d/out"
[ "$(jq -r '[.rules[].allow] | join(" ")' "$d/out")" = "@games bin" ] || fail "$(cat "$d/out")"
as bin "$favo" image rules >"$d/out" && grep -q '^chem/ *bin *root' "$d/out" || fail "$(cat "$d/out")"
ok "rules are listed, and what they were before"
"$favo" image allow chem/app all
"$favo" image gc >"$d/out"
may bin "chem/app:v1"
may_not games chem/other "the rule of chem/ allows bin"
ok "all opens an image again; gc keeps rules"
