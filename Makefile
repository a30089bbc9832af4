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
  Toolchain/libsodium-small.c $(wildcard Toolchain/boards/*)
# Limits, in bytes, of the shipped binaries.
STATIC_MAX := 262144
BOARD_MAX := 262144
# Swift packages: warnings are errors in the manifest itself.
SWIFT_BUILD := swift build -c release --product culvert

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

# --- what everything needs

.PHONY: deps
deps: ## install the Debian packages that building and testing need (as root)
	@Toolchain/install-deps

build/peers/wireguard-go-newest: | deps
	@Tests/Interop/fetch-peers

.PHONY: peers
peers: build/peers/wireguard-go-newest

# --- building

.PHONY: build
build: deps $(ORDINARY) ## the ordinary build: build/ordinary/culvert

$(ORDINARY): $(SOURCES)
	@echo "building culvert (ordinary Swift, release)"
	@mkdir -p $(@D)
	@Toolchain/quietly $(SWIFT_BUILD)
	@cp .build/release/culvert $@

.PHONY: static
static: deps $(STATIC) ## the shipped build: one static Embedded Swift binary, build/x86_64/culvert

# A binary is made anew when a source, the scripts or a board's flags changed, not when a package's
# files did.
build/%/culvert: $(SOURCES) $(TOOLCHAIN)
	@Toolchain/build-static $*
	@touch $@

.PHONY: sdk
sdk: deps ## the Swift SDKs of all boards, from Debian's sources of musl and libsodium
	@for board in $(BOARDS); do Toolchain/make-sdk $$board || exit 1; done

.PHONY: $(BOARDS)
$(BOARDS): %: deps build/%/culvert # one board's static binary, build/BOARD/culvert

.PHONY: boards
boards: deps $(BOARDS:%=build/%/culvert) ## a static binary for each board: build/BOARD/culvert

# The official SDK's triple, in build/TRIPLE/culvert.
SDK := aarch64-swift-linux-musl

.PHONY: static-sdk
static-sdk: deps ## ordinary Swift with the official Static Linux SDK (SDK=aarch64-swift-linux-musl)
	@Toolchain/static-sdk $(SDK)

.PHONY: ordinary-arm64
ordinary-arm64: deps ## for a release: ordinary Swift and tests on emulated arm64 (1.3 GB to fetch)
	@Toolchain/ordinary-arm64

.PHONY: install
install: static ## install the static binary (PREFIX=/usr/local, DESTDIR=)
	@install -D -m 755 $(STATIC) $(DESTDIR)$(or $(PREFIX),/usr/local)/bin/culvert
	@echo "installed $(DESTDIR)$(or $(PREFIX),/usr/local)/bin/culvert"

.PHONY: docs
docs: ## the library's documentation, with docc: build/docs/Culvert.doccarchive
	@Toolchain/make-docs

# --- showing

.PHONY: demo
demo: static peers ## bring up a real tunnel against wireguard-go, pass traffic, say what happened
	@Tests/Interop/demo --program $(STATIC)

.PHONY: bench
bench: static peers ## race it against wireguard-go (PEERS="name=command;..." ROUNDS= ONLY= QUICK=1)
	@Tests/Interop/benchmark/install-plotting
	$(if $(ONLY)$(QUICK),,@Tests/Microbench/run --times)
	@Tests/Interop/bench --program $(STATIC) --check --peers "$(PEERS)" --only "$(ONLY)" \
	  $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(SECONDS),--seconds $(SECONDS)) $(if $(QUICK),--quick)

.PHONY: microbench
microbench: deps ## instructions per operation against a baseline (BASELINE=write renews it)
	@Tests/Microbench/run $(if $(filter write,$(BASELINE)),--write)

# --- testing

.PHONY: test
test: ## everything that CI runs
	@Tests/run-all

.PHONY: unit
unit: deps ## unit, model and simulation tests
	@swift test --quiet

.PHONY: models
models: ## the reassembler beside a naive model, a million seeded streams (STREAMS=1000000)
	@Tests/Models/run $(or $(STREAMS),1000000)

.PHONY: embedding
embedding: deps ## the programs of the library's documentation, built and run
	@Tests/Embedding/run

.PHONY: interop
interop: static peers ## real tunnels between namespaces, with the static binary
	@Tests/Interop/run --program $(STATIC)

.PHONY: interop-ordinary
interop-ordinary: build peers ## the same with the ordinary build
	@Tests/Interop/run --program $(ORDINARY)

.PHONY: allocation
allocation: static build peers ## nothing is allocated after start, in both builds
	@Tests/Allocation/run --program $(STATIC) --ordinary $(ORDINARY)

.PHONY: fuzz
fuzz: deps ## fuzz (TARGET=join SECONDS=20; all without TARGET; see Tests/Fuzz/run)
	@Tests/Fuzz/run $(or $(TARGET),all) $(or $(SECONDS),20)

.PHONY: sanitize
sanitize: deps peers ## unit tests under the address and thread sanitizers
	@Tests/sanitize

.PHONY: size
size: static ## the static binary is static, stripped and small (size-boards: each board's)
	@Toolchain/check-static $(STATIC)
	@Toolchain/check-size $(STATIC) $(STATIC_MAX)

.PHONY: size-boards
size-boards: boards
	@for board in $(filter-out x86_64,$(BOARDS)); do Toolchain/check-static build/$$board/culvert && \
	  Toolchain/check-size build/$$board/culvert $(BOARD_MAX) || exit 1; done

.PHONY: test-boards
test-boards: boards peers ## each board's binary under qemu-user, against real peers
	@Tests/Emulated/run

.PHONY: reproducible
reproducible: deps ## SDK and binary of each board, built twice: the same bytes (BOARD=armv6)
	@Tests/Reproducible/run $(BOARD)

.PHONY: test-static-sdk
test-static-sdk: deps ## what `make static-sdk` says and hands to Swift, with a stand-in for the SDK
	@Tests/StaticSDK/run

.PHONY: layers
layers: ## each folder of the core uses only what it may
	@Toolchain/check-layers

.PHONY: requirements
requirements: ## every requirement has a test that carries its number
	@Toolchain/check-requirements

.PHONY: lint
lint: ## swift-format's rules and the house numbers
	@Toolchain/check-style

.PHONY: format
format: ## format the sources in place
	@swift format --in-place --parallel --recursive Sources Tests Package.swift

.PHONY: clean
clean: ## remove what was built (not what was fetched)
	@rm -rf .build .build-* build/$(ARCH) build/ordinary build/fuzz build/microbench

# --- packages

.PHONY: deb
deb: build/$(ARCH)/culvert ## a Debian package of a board's binary (ARCH=aarch64)
	@Toolchain/make-deb $(ARCH)

.PHONY: tarball
tarball: build/$(ARCH)/culvert ## the same for OpenWrt, OpenRC and others, with an install.sh
	@Toolchain/make-tarball $(ARCH)

.PHONY: flash
flash: ## put Culvert on a mounted card (ROOT=/mnt/card CONF=wg0.conf DRYRUN=1)
	@Toolchain/flash $(if $(DRYRUN),--dry-run) $(if $(BOARD),--board "$(BOARD)") \
	  $(if $(CONF),--config "$(CONF)") "$(ROOT)"

.PHONY: test-packages
test-packages: boards ## packages: made, installed, started, flashed, purged
	@Tests/Packages/run
