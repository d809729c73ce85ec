#!/bin/sh
# policy-review.sh BASE FILE...: what a reviewer of a change of policies wants to know.
# Checks and tests each policy, compares it with where HEAD left the commit BASE ("" for none),
# and shows who may reach what.
#
#   THURWARD  the program (thurward)
#   OUT       folder for FILE.sarif, FILE.junit.xml, FILE.svg and review.markdown (policy-review)
#   OPENS     what happens when a policy becomes more permissive: report, or fail
#
# Exits with 1 if a policy is not valid or one of its tests fails, 2 for wrong use and where
# BASE is not in the clone, and 4 if OPENS is fail and a policy becomes more permissive, or
# cannot be compared since it was not valid before. A new policy is compared with nothing.
set -u

thurward=${THURWARD:-thurward}
out=${OUT:-policy-review}
opens=${OPENS:-report}

if [ $# -lt 2 ]; then
	echo "usage: policy-review.sh BASE FILE..." >&2
	exit 2
fi
case $opens in report | fail) ;; *)
	echo "policy-review.sh: OPENS is \"$opens\"; want report or fail" >&2
	exit 2
	;;
esac
base=$1
shift
mkdir -p "$out" || exit 2
: >"$out/review.markdown"
# A comparison that cannot be made is not one that found nothing.
if [ -n "$base" ]; then
	if ! start=$(git rev-parse --verify --quiet --end-of-options "$base^{commit}") ||
		! start=$(git merge-base "$start" HEAD); then
		echo "The change **cannot be compared**: the clone does not have the base commit, or not the history that leads to it." >>"$out/review.markdown"
		echo "policy-review.sh: this clone does not have the commit \"$base\", or not the history from it to HEAD (git fetch --unshallow; with actions/checkout, fetch-depth: 0)" >&2
		exit 2
	fi
fi

# matrix FILE NAME: who may reach what by the policy FILE, folded up.
matrix() {
	echo "<details><summary>Who may reach what</summary>"
	echo
	if "$thurward" explain --matrix -f "$1" --format svg >"$out/$2.svg"; then
		"$thurward" explain --matrix -f "$1" --format markdown
	else
		rm -f "$out/$2.svg"
		echo "There is no table: it would be too large."
	fi
	echo
	echo "</details>"
	echo
}

result=0
for file in "$@"; do
	name=$(printf %s "$file" | tr -c 'A-Za-z0-9.\n-' _)
	echo "## $name" >>"$out/review.markdown"
	echo >>"$out/review.markdown"
	"$thurward" check -f "$file" --format sarif >"$out/$name.sarif"
	if ! "$thurward" check -f "$file"; then
		echo "The policy is **not valid**." >>"$out/review.markdown"
		result=1
		continue
	fi
	"$thurward" test -f "$file" --format junit >"$out/$name.junit.xml" 2>/dev/null
	if ! "$thurward" test -f "$file" 2>/dev/null; then
		echo "Tests of the policy **fail**." >>"$out/review.markdown"
		echo >>"$out/review.markdown"
		result=1
	fi
	if [ -z "$base" ]; then
		matrix "$file" "$name" >>"$out/review.markdown"
		continue
	fi
	"$thurward" diff "$start" -f "$file" --format markdown >"$out/$name.diff" 2>"$out/$name.error"
	code=$?
	case $code in
	0 | 3 | 4) cat "$out/$name.diff" >>"$out/review.markdown" ;;
	esac
	if [ "$code" = 0 ] || [ "$code" = 3 ]; then
		:
	elif [ "$code" = 4 ]; then
		[ "$opens" = report ] || [ "$result" != 0 ] || result=4
	elif ! git cat-file -e "$start:./$file" 2>/dev/null; then
		echo "The policy is new." >>"$out/review.markdown"
	elif ! git cat-file blob "$start:./$file" | "$thurward" check - >/dev/null 2>&1; then
		# Otherwise nobody could repair a policy.
		echo "The policy **was not valid** before: there is nothing to compare it with." >>"$out/review.markdown"
		[ "$opens" = report ] || [ "$result" != 0 ] || result=4
	else
		echo "It could not be compared." >>"$out/review.markdown"
		cat "$out/$name.error" >&2
		result=1
	fi
	rm -f "$out/$name.diff" "$out/$name.error"
	echo >>"$out/review.markdown"
	matrix "$file" "$name" >>"$out/review.markdown"
done
exit $result
