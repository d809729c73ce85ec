# make            lists the targets
# make run        boots the firewall between simulated hosts
# make test       proves what the documentation says

GO        ?= go
VERSION   ?= dev
GIT_SHA   ?= $(shell git rev-parse HEAD 2>/dev/null)$(shell test -z "$$(git status --porcelain 2>/dev/null)" || echo -dirty)
POLICY    ?= rules.yaml
# What a program tells of itself: internal/shared/stamp.
SCHEMA    := $(shell sha256sum schemas/rules.schema.json 2>/dev/null | cut -c1-64)
STAMP     := -X github.com/thurward/thurward/internal/shared/stamp.text=thurward-build{$(VERSION);$(GIT_SHA);$(SCHEMA)}

# Nothing here needs C, and the guest is built without: the command line shares
# what was compiled for it, and no C compiler is looked for.
export CGO_ENABLED := 0

# Tools that are not for every day, with their modules apart: tools/go.mod.
TOOL      := $(GO) tool -modfile=tools/go.mod

.PHONY: help build run test differential evasions mutants bench bench-cycles bench-vm bench-tap machines density soak lint release reproduce test-release clean collector

help: ## this list
	@echo "thurward: a firewall that boots as a unikernel"
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: bin/thurward build/kernel.elf build/firewall.elf build/toolchain.json ## the command line (bin/thurward) and the image (build/thurward.img) of $(POLICY)
	@if test "$$(bin/thurward build -f $(POLICY) --which-program 2>/dev/null)" = firewall-dot.elf; then $(MAKE) --no-print-directory build/firewall-dot.elf; fi
	bin/thurward build -f $(POLICY) -o build/thurward.img

# Go's cache knows what is up to date.
.PHONY: bin/thurward build/kernel.elf build/firewall.elf build/firewall-dot.elf build/toolchain.json
bin/thurward:
	@GO='$(GO)' scripts/need.sh --check go
	@mkdir -p bin
	$(GO) build -trimpath -buildvcs=false -ldflags='$(STAMP)' -o $@ ./cmd/thurward

# The parts of the image are compiled by the toolchain that go.mod pins, and no other,
# in an environment in which nothing of the caller's changes them: internal/host/kernelbuild.
# The second program is the one with TLS, for policies that have an upstream with tls.
build/kernel.elf build/firewall.elf build/firewall-dot.elf build/toolchain.json:
	@mkdir -p build
	$(GO) run ./internal/host/kernelbuild/part -version '$(VERSION)' -commit '$(GIT_SHA)' $@

# QEMU is installed while Go compiles. What cannot be installed is said before.
run: ## build, then watch it work between simulated hosts; no root needed
	@scripts/need.sh --check run
	@scripts/need.sh run & need=$$!; $(MAKE) --no-print-directory build; built=$$?; wait $$need && exit $$built
	bin/thurward run --lan demo --wan demo

# What starts machines mostly waits. The rest computes, in the time that is left (nice), so that
# it does not disturb the machines. Suites that bear another one beside them run two at a time;
# test/e2e has tests that measure times, and runs its others side by side itself
# (docs/testing.md). What both need is compiled first, once. It is make lint that vets.
BESIDE := ./test/kernel ./test/isolation ./test/evasions ./test/firsthour
ALONE  := ./test/e2e

test: ## all tests, those on the booted image among them
	@scripts/need.sh test
	$(GO) build ./...
	@scripts/beside.sh '$(MAKE) --no-print-directory test-machines' 'nice -n 19 $(MAKE) --no-print-directory test-rest'

.PHONY: test-machines test-rest
test-machines:
	$(GO) test -vet=off -timeout 20m -p 2 $(BESIDE)
	$(GO) test -vet=off -timeout 20m $(ALONE)

test-rest:
	$(GO) test -vet=off -timeout 20m $$($(GO) list ./... | grep -v '/test/\(kernel\|isolation\|e2e\|evasions\|firsthour\)$$')
	$(GO) test -vet=off -timeout 20m ./test/release -run TestHostileEnvironments -cold
	cd collector && $(GO) test -vet=off -timeout 20m ./...

collector: ## bin/thurward-collector, the OpenTelemetry Collector with the receiver for firewalls
	@mkdir -p bin
	cd collector && CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags='-s -w -X main.version=$(VERSION)' -o ../bin/thurward-collector ./cmd/thurward-collector

differential: ## the data plane against the Linux kernel, packet by packet (root; docs/differences-from-linux.md)
	@scripts/need.sh differential
	$(GO) test ./test/differential -v -count=1 -sequences 5000 -timeout 20m

MUTANTS ?= 100
SEED    ?= 1
LEAST   ?= 0

mutants: ## changes of the code that no test notices, a sample (MUTANTS=0: all, hours; docs/testing.md)
	@$(GO) run ./test/mutants -sample $(MUTANTS) -seed $(SEED) -least $(LEAST)

evasions: ## the corpus of attacks: on the data plane, the image, and what people use instead (root; docs/evasions.md)
	@scripts/need.sh evasions
	@mkdir -p build
	$(GO) test ./test/evasions -count=1 -timeout 4h -every -peers -table $(CURDIR)/build/evasions.md
	@cat build/evasions.md

bench: ## the data path's benchmarks, in process
	$(GO) test -run '^$$' -bench . -benchmem ./internal/shared/packet ./internal/guest/conntrack ./internal/guest/nat ./internal/guest/filter ./internal/guest/router ./internal/guest/virtio ./internal/guest/export
	$(GO) test -run 'TestSweep$$' -v ./internal/guest/filter -sweep

bench-cycles: ## instructions, cache misses and cycles for a packet, by stage (valgrind; docs/testing.md)
	@scripts/need.sh cycles
	$(GO) run ./bench/cycles

bench-vm: ## the image in a virtual machine, driven over shared memory, beside a wire; needs two processors
	@scripts/need.sh run
	$(GO) run ./bench/vm -rounds 3

bench-tap: build ## the image on QEMU and Firecracker between two Linux hosts over TAP, beside a bridge and nftables (root, iperf3)
	$(GO) run ./bench/tap

BOOTS ?= 20

machines: build ## boot the image on every machine that there is for it here, with traffic: docs/machines.md (root)
	$(GO) run ./bench/machines -boots $(BOOTS) -o docs/machines.md

DENSITY ?= 1,10,100

density: build ## what a firewall for each of N sandboxes costs: docs/sandbox.md (root; DENSITY=1,10; Firecracker, QEMU, and nftables beside)
	@scripts/need.sh evasions
	$(GO) run ./bench/density -n $(DENSITY)

soak: ## the image under load for ten minutes, and what iperf3 carries through it (Debian: iperf3)
	@scripts/need.sh test
	$(GO) test ./test/e2e -run 'TestSoak$$' -soak=10m -soak-stall=100ms -timeout 30m -v
	$(GO) test ./test/e2e -run 'TestIperf$$' -iperf=5s -timeout 10m -v

.PHONY: formats
formats: ## the dashboard, the compose file and SARIF, by Grafana's types, docker compose's reader and the schema
	cd tools/formats && CGO_ENABLED=0 $(GO) test -count=1 -timeout 10m ./...

lint: ## gofmt, go vet, staticcheck, govulncheck
	@scripts/lint.sh

.PHONY: deb install-test
deb: build/kernel.elf build/firewall.elf build/firewall-dot.elf build/toolchain.json ## build/thurward.deb, the Debian package (docs/install.md)
	$(GO) build -trimpath -buildvcs=false -ldflags='-s -w $(STAMP)' -o build/thurward ./cmd/thurward
	rm -rf build/man && mkdir -p build/man
	$(GO) run -tags man ./cmd/thurward man build/man
	scripts/completions.sh build/thurward build/completions
	GO="$(GO)" scripts/deb.sh "$(VERSION)" "$$($(GO) env GOARCH)" build build/thurward.deb

# The package for arm64 has the same parts: they are the virtual machine's.
.PHONY: build/arm64/thurward.deb
build/arm64/thurward.deb: deb
	@mkdir -p build/arm64
	GOARCH=arm64 $(GO) build -trimpath -buildvcs=false -ldflags='-s -w $(STAMP)' -o build/arm64/thurward ./cmd/thurward
	cp -r build/*.elf build/toolchain.json build/man build/completions build/arm64/
	GO="$(GO)" scripts/deb.sh "$(VERSION)" arm64 build/arm64 $@

install-test: deb build/arm64/thurward.deb ## the package on a Debian 12: install, init, build, service, traffic, deploy, remove (root; FRESH=1: a fresh one)
	@scripts/need.sh install
	test/install/install.sh build/thurward.deb build/arm64/thurward.deb

# What is published: docs/release.md. Everything is compiled by internal/host/kernelbuild,
# and nothing is fetched but modules that go.sum pins.
release: ## all that is published, into build/release, the same bytes each time (VERSION=1.2.3)
	@scripts/release.sh '$(VERSION)' '$(GIT_SHA)'

reproduce: ## make release again, in another folder with empty caches, and compare
	@scripts/reproduce.sh '$(VERSION)' '$(GIT_SHA)'

test-release: ## signatures against the real cosign, and certificates; compiles cosign (docs/release.md)
	$(TOOL) -n cosign >/dev/null
	$(GO) test -count=1 -timeout 20m ./test/release -run 'TestCosign|TestKeyless' -cosign
	$(GO) test -count=1 -timeout 20m -modfile=tools/go.mod -tags sigstore ./cmd/thurward-sigstore ./internal/host/oci

# Verifies certificates: thurward verify --certificate-identity runs it.
.PHONY: bin/thurward-sigstore
bin/thurward-sigstore:
	@mkdir -p bin
	$(GO) build -modfile=tools/go.mod -tags sigstore -trimpath -buildvcs=false -o $@ ./cmd/thurward-sigstore

clean: ## remove what was built
	rm -rf bin build
