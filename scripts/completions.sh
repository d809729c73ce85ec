#!/bin/sh
# completions.sh PROGRAM FOLDER: writes the completions of bash, zsh and fish into a new FOLDER.
set -eu
rm -rf "$2"
mkdir -p "$2"
"$1" completion bash >"$2/thurward.bash"
"$1" completion zsh >"$2/_thurward"
"$1" completion fish >"$2/thurward.fish"
