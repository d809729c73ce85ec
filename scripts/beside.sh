#!/bin/bash
# beside.sh COMMAND...: runs command lines side by side, waits for all, and fails if one fails.
# What the first one prints is seen as it comes, that of each other as a whole, when it has
# ended. At the end, which have failed is said once more. Each is a group of processes of its
# own, which is ended with this script.
set -mu

out=$(mktemp -d)
pids=() names=()
end() {
	for p in "${pids[@]}"; do kill -TERM -- "-$p" 2>/dev/null; done
	rm -rf "$out"
}
trap end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

for command in "$@"; do
	n=${#pids[@]}
	echo "$command"
	if [ "$n" = 0 ]; then
		bash -c "$command" </dev/null &
	else
		(
			bash -c "$command" >"$out/$n" 2>&1 </dev/null
			status=$?
			cat "$out/$n"
			exit "$status"
		) &
	fi
	pids+=($!) names+=("$command")
done

failed=0
for n in "${!pids[@]}"; do
	wait "${pids[n]}"
	status[n]=$?
	[ "${status[n]}" = 0 ] || failed=1
done
for n in "${!pids[@]}"; do
	[ "${status[n]}" = 0 ] || echo "beside.sh: exit status ${status[n]}: ${names[n]}" >&2
done
pids=()
exit "$failed"
