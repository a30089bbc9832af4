# Culvert. `make` or `make help` lists the targets; README.md says which two to start with.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory
SHELL := /bin/sh

ARCH := x86_64
BOARDS := aarch64 armv7 armv6 riscv64 x86_64
STATIC := build/x86_64/culvert
ORDINARY := build/ordinary/culvert
SOURCES := Package.swift $(shell find Sources -type f -not -path '*.docc/*')
TOOLCHAIN := Toolchain/build-static Toolchain/make-sdk Toolchain/common.sh Toolchain/sources.conf \
  $(wildcard Toolchain/boards/* Toolchain/libsodium/*)
# The limit, in bytes, of each shipped binary.
SIZE_MAX := 393216
# Swift packages: warnings are errors in the manifest itself.
SWIFT_BUILD := swift build -c release --product culvert

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' Makefile

# --- dependencies

.PHONY: deps
deps: ## install the Debian packages that building and testing need (as root)
	@Toolchain/install-deps

# One group of them: deps-build, deps-unit, deps-system, deps-boards, deps-packages, deps-bench.
.PHONY: deps-%
deps-%:
	@Toolchain/install-deps $*

build/peers/wireguard-go-newest: | deps-system
	@Tests/System/fetch-peers

.PHONY: peers
peers: build/peers/wireguard-go-newest

# --- building

.PHONY: build
build: deps-build $(ORDINARY) ## the ordinary build: build/ordinary/culvert

$(ORDINARY): $(SOURCES)
	@echo "building culvert (ordinary Swift, release)"
	@mkdir -p $(@D)
	@Toolchain/quietly $(SWIFT_BUILD)
	@cp .build/release/culvert $@

.PHONY: static
static: deps-build $(STATIC) ## the shipped build, Embedded Swift: build/x86_64/culvert

# Only sources, these scripts and the boards' flags cause a new build; packaging does not.
build/%/culvert: $(SOURCES) $(TOOLCHAIN)
	@Toolchain/build-static $*
	@touch $@

.PHONY: sdk
sdk: deps-build ## the Swift SDKs of all boards, from Debian's sources of musl and libsodium
	@for board in $(BOARDS); do Toolchain/make-sdk $$board || exit 1; done

.PHONY: $(BOARDS)
$(BOARDS): %: deps-build build/%/culvert # one board's static binary, build/BOARD/culvert

.PHONY: boards
boards: deps-build $(BOARDS:%=build/%/culvert) ## a static binary for each board

# The triple of the official SDK; the result is build/TRIPLE/culvert.
SDK := aarch64-swift-linux-musl

.PHONY: static-sdk
static-sdk: deps-build ## with the official Static Linux SDK (SDK=aarch64-swift-linux-musl)
	@Toolchain/static-sdk $(SDK)

.PHONY: ordinary-arm64
ordinary-arm64: deps-build deps-boards ## for a release: emulated arm64 (downloads 1.3 GB)
	@Toolchain/ordinary-arm64

.PHONY: install
install: static ## install the static binary (PREFIX=/usr/local, DESTDIR=)
	@install -D -m 755 $(STATIC) $(DESTDIR)$(or $(PREFIX),/usr/local)/bin/culvert
	@echo "installed $(DESTDIR)$(or $(PREFIX),/usr/local)/bin/culvert"

.PHONY: docs
docs: deps-unit ## the library's documentation, with docc: build/docs/Culvert.doccarchive
	@Toolchain/make-docs

# --- demo and benchmarks

.PHONY: demo
demo: static deps-system peers ## run a real tunnel against wireguard-go and pass traffic through it
	@Tests/System/demo --program $(STATIC)

.PHONY: bench
# PEERS="name=command;...", ROUNDS=, SECONDS= and ONLY= are in docs/TESTING.md.
bench: static deps-system peers ## race it against wireguard-go (QUICK=1)
	@Toolchain/install-deps bench
	@Toolchain/install-deps plots || echo "no plots without python3-matplotlib"
	$(if $(ONLY)$(QUICK),,@Tests/Bench/Micro/run --times)
	@Tests/Bench/run-race --program $(STATIC) --check --peers "$(PEERS)" --only "$(ONLY)" \
	  $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(SECONDS),--seconds $(SECONDS)) $(if $(QUICK),--quick)

.PHONY: microbench
microbench: deps-bench ## instructions per operation against a baseline (BASELINE=write renews it)
	@Tests/Bench/Micro/run $(if $(filter write,$(BASELINE)),--write)

# --- testing

# Options of the system tests: K='wg*' runs those whose name matches.
K ?=
SYSTEM := Tests/System/run
FILTERED = $(if $(K),-k '$(K)')

.PHONY: test
test: ## every kind of test, in under twelve minutes
	@Toolchain/install-deps build unit system boards
	@$(SYSTEM) plan test

.PHONY: test-rest
test-rest: deps ## what `make test` leaves out: other builds, all boards as tunnels, packages, ...
	@$(SYSTEM) plan test-rest

.PHONY: test-all
test-all: deps ## everything: `make test`, then `make test-rest`
	@.ci/run

.PHONY: unit
unit: deps-unit ## unit, model and simulation tests (FILTER=AEADTests runs some of them)
	@Tests/run-unit $(if $(FILTER),'$(FILTER)')

.PHONY: mutants
mutants: deps-unit ## faults that no unit test detects (FOLDER=Noise COUNT=40 SEED=1 FILE= FILTER=)
	@Tests/Mutants/run $(or $(FOLDER),$(error FOLDER is missing, for example FOLDER=Noise)) \
	  --count $(or $(COUNT),40) --seed $(or $(SEED),1) --file '$(FILE)' --filter '$(FILTER)'

.PHONY: models
models: ## the reassembler beside a naive model, a million seeded streams (STREAMS=1000000)
	@Tests/Fuzz/Models/run $(or $(STREAMS),1000000)

.PHONY: simulate
simulate: deps-unit ## hosts, a faulty network, crashes and changes (SEEDS=1000000 FIRST=1: a night)
	@Tests/Fuzz/Simulator/run selftest
	@Tests/Fuzz/Simulator/run $(or $(SEEDS),10000) $(or $(FIRST),1)

.PHONY: embedding
embedding: deps-unit ## build and run the programs of the library's documentation
	@$(SYSTEM) embedding

.PHONY: interop
interop: static deps-system peers ## real tunnels between namespaces (K='wg*')
	@$(SYSTEM) interop --program $(STATIC) $(FILTERED)

.PHONY: interop-ordinary
interop-ordinary: build deps-system peers ## the same with the ordinary build
	@$(SYSTEM) interop --program $(ORDINARY) $(FILTERED)

.PHONY: allocation
allocation: static build deps-system peers ## nothing is allocated after startup, in both builds
	@$(SYSTEM) allocation --program $(STATIC) --ordinary $(ORDINARY) $(FILTERED)

.PHONY: fuzz
fuzz: deps-unit ## fuzz (TARGET=join SECONDS=20; all without TARGET; see Tests/Fuzz/run)
	@Tests/Fuzz/run $(or $(TARGET),all) $(or $(SECONDS),20)

.PHONY: sanitize
sanitize: deps-unit deps-system peers ## unit tests and the program under sanitizers (K=thread)
	@$(SYSTEM) sanitize $(FILTERED)

.PHONY: size
size: static ## the static binary is static, stripped and small (size-BOARD, size-boards)
	@$(MAKE) size-x86_64

.PHONY: size-boards
size-boards: $(BOARDS:%=size-%)

.PHONY: $(BOARDS:%=size-%)
$(BOARDS:%=size-%): size-%: % # form and size of one board's binary
	@Toolchain/checks/check-static build/$*/culvert
	@Toolchain/checks/check-size build/$*/culvert $(SIZE_MAX)

.PHONY: test-boards
test-boards: boards deps-boards deps-system peers ## each board's binary under qemu-user
	@$(SYSTEM) boards $(if $(BOARD),--boards $(BOARD)) $(FILTERED)

.PHONY: reproducible
reproducible: deps-build ## build each board's SDK and binary twice, compare bytes (BOARD=armv6)
	@$(SYSTEM) reproducible $(if $(BOARD),-k $(BOARD))

.PHONY: test-static-sdk
test-static-sdk: deps-build deps-boards ## `make static-sdk` with a stand-in for the official SDK
	@$(SYSTEM) static-sdk

.PHONY: layers
layers: deps-unit ## each folder of the core uses only what it may
	@Toolchain/checks/check-layers

.PHONY: requirements
requirements: ## every requirement has a test with its number
	@Toolchain/checks/check-requirements

.PHONY: lint
lint: ## the house rules, and swift-format's (RULE=columns: only one)
	@Toolchain/checks/check-style $(RULE)

.PHONY: format
format: ## format the sources in place
	@swift format --in-place --parallel --recursive Sources Tests Package.swift

.PHONY: clean
clean: ## remove what was built (not what was downloaded)
	@rm -rf .build .build-* build/$(ARCH) build/ordinary build/fuzz build/microbench build/models \
	  build/simulator

# --- packages

.PHONY: deb
deb: deps-build build/$(ARCH)/culvert ## a Debian package of a board's binary (ARCH=aarch64)
	@Toolchain/packaging/make-deb $(ARCH)

.PHONY: tarball
tarball: deps-build build/$(ARCH)/culvert ## a tarball for OpenWrt, OpenRC and others
	@Toolchain/packaging/make-tarball $(ARCH)

.PHONY: flash
flash: $(if $(DRYRUN),,deps-build) ## onto a mounted card (ROOT=/mnt/card CONF=wg0.conf DRYRUN=1)
	@Toolchain/packaging/flash $(if $(DRYRUN),--dry-run) $(if $(BOARD),--board "$(BOARD)") \
	  $(if $(CONF),--config "$(CONF)") "$(ROOT)"

.PHONY: test-packages
test-packages: boards deps-packages ## packages: build, install, start, flash, purge
	@$(SYSTEM) packages $(FILTERED)
