#!/bin/sh
# policy-review.sh BASE FILE...: what a reviewer of a change of policies wants to know.
# Checks and tests each policy, compares it with the commit BASE ("" for none), and shows
# who may reach what.
#
#   THURWARD  the program (thurward)
#   OUT       folder for FILE.sarif, FILE.junit.xml, FILE.svg and review.markdown (policy-review)
#   OPENS     what happens when a policy becomes more permissive: report, or fail
#
# Exits with 1 if a policy is not valid or one of its tests fails, 2 for wrong use, and
# 4 if one becomes more permissive and OPENS is fail.
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
	if ! git cat-file -e "$base:./$file" 2>/dev/null; then
		echo "The policy is new." >>"$out/review.markdown"
		echo >>"$out/review.markdown"
		matrix "$file" "$name" >>"$out/review.markdown"
		continue
	fi
	"$thurward" diff "$base:$file" "$file" --format markdown >>"$out/review.markdown"
	code=$?
	echo >>"$out/review.markdown"
	case $code in
	0 | 3) ;;
	4)
		if [ "$opens" = fail ] && [ "$result" = 0 ]; then
			result=4
		fi
		;;
	*)
		echo "It could not be compared." >>"$out/review.markdown"
		result=1
		;;
	esac
	matrix "$file" "$name" >>"$out/review.markdown"
done
exit $result
