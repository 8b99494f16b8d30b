# Shoal. `make help` lists the targets. Needs Go (the release that go.mod names or newer),
# git and make; what else a target needs scripts/tools.sh installs, at pinned versions.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

GO ?= go
PREFIX ?= /usr/local
DESTDIR ?=

# Of `make test` and `make check`: the packages, the time that one may take, and flags
# for go test, as in `make test PKGS=./core/... TESTFLAGS='-run TestJoin'`.
PKGS ?= ./...
TIMEOUT ?= 25m
TESTFLAGS ?=
# Of `make fuzz`: the time for each target.
FUZZTIME ?= 10s
# Of `make soak`: flags of scripts/soak.sh, as in `make soak SOAK='--minutes 60'`.
SOAK ?=
# Of `make sim`: the first seed, and how many.
SEED ?= 1
N ?= 100

tools := ./scripts/tools.sh
gate := .tools/bin/testsummary -race -no-race .ci/no-race -timeout $(TIMEOUT) \
	-allowed-skips .ci/allowed-skips -log .tools/events.json
# Programs that the tests run as real peers; they skip without them, which CI forbids.
peers := aws fake-gcs-server nats rclone s3cmd versitygw
export PATH := $(CURDIR)/.tools/bin:$(PATH)

# Under CI a skipped test is a failure, unless .ci/allowed-skips has its reason.
ifneq ($(filter-out 0 false,$(CI)),)
gate += -enforce-skips
endif

# $(call require,PATH,WHAT): fail clearly where a part of the project is not there yet.
require = @test -e $(1) || { echo "make $@: $(2) is not built yet: $(1) does not exist" >&2; exit 1; }

.PHONY: help demo test check fuzz sim bench bench-etl soak guests build install tools

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## show the cluster at work on this machine
	$(call require,scripts/demo.sh,the demo)
	@$(tools) fake-gcs-server versitygw
	@$(MAKE) build
	scripts/demo.sh

# The tests run even if bin/shoal does not build, so that a run always ends with totals;
# those that start the program then fail rather than meet an old one.
test: ## run every test, under the race detector but for .ci/no-race, and print a summary
	@$(tools) gcc $(peers)
	@$(GO) build -o .tools/bin/testsummary ./scripts/testsummary
	@rm -f bin/shoal; status=0; $(MAKE) build || status=$$?; \
		$(gate) $(PKGS) $(if $(TESTFLAGS),-- $(TESTFLAGS)) || status=$$?; exit $$status

check: ## format, vet, lint, and the tests under the race detector: the gate before a commit
	@$(tools) gcc gofumpt golangci-lint shellcheck $(peers)
	@unformatted=$$(gofumpt -l .); test -z "$$unformatted" || \
		{ printf 'make check: gofumpt -w would change:\n%s\n' "$$unformatted" >&2; exit 1; }
	$(GO) vet ./...
	golangci-lint config verify
	golangci-lint run
	$(GO) run ./scripts/layers
	shellcheck --severity=warning $$(git ls-files '*.sh' .ci/run)
	@$(MAKE) build
	@$(GO) build -o .tools/bin/testsummary ./scripts/testsummary
	@$(gate) -only-race $(PKGS) $(if $(TESTFLAGS),-- $(TESTFLAGS))

fuzz: ## run every fuzz target for FUZZTIME (10s) each
	@scripts/fuzz.sh $(FUZZTIME) $(PKGS)

sim: ## run N (100) seeds of the deterministic simulator, from SEED (1) on
	$(call require,core/sim,the simulator)
	@listing=$$($(GO) test -list '^TestSim$$' ./core/sim) || { echo "$$listing" >&2; exit 1; }; \
		grep -qx TestSim <<<"$$listing" || \
		{ echo "make sim: the simulator is not built yet: core/sim has no TestSim" >&2; exit 1; }
	$(GO) test ./core/sim -run '^TestSim$$' -count=1 -timeout 0 -v -args -seed=$(SEED) -n=$(N)

bench: ## measure, and compare with what is on record
	$(call require,scripts/bench,the benchmark)
	@$(tools) benchstat versitygw fake-gcs-server
	@$(MAKE) build
	$(GO) run ./scripts/bench

bench-etl: ## measure transforms, and write docs/benchmarks-etl.md
	@$(tools) gcc
	@$(MAKE) build
	$(GO) run ./scripts/bench -only etl,etl-cluster,etl-jobs,etl-node -rounds 5 -cell 1s -out docs/benchmarks-etl.md

soak: ## run the failure scripts in turn until Ctrl-C, and go on where soak.jsonl ends
	$(call require,scripts/soak.sh,the soak test)
	@$(MAKE) build
	scripts/soak.sh $(SOAK)

guests: ## rebuild the C examples of transforms and compare them with the ones that tests use
	wasmetl/guest/c/build.sh --check

# The tag leaves out the parts of Google's storage library for gRPC, which nothing here
# uses: 20 MB of the program.
build: ## build bin/shoal
	$(call require,cmd/shoal,the shoal program)
	CGO_ENABLED=0 $(GO) build -trimpath -tags disable_grpc_modules -buildvcs=auto -o bin/shoal ./cmd/shoal

install: build ## install shoal and its completions under PREFIX (/usr/local)
	install -D -m 755 bin/shoal $(DESTDIR)$(PREFIX)/bin/shoal
	@install_completion() { \
		if bin/shoal completion "$$1" >bin/completion 2>/dev/null; then \
			install -D -m 644 bin/completion "$(DESTDIR)$(PREFIX)/share/$$2"; \
			echo "install -m 644 $(DESTDIR)$(PREFIX)/share/$$2"; \
		fi; \
		rm -f bin/completion; \
	}; \
	install_completion bash bash-completion/completions/shoal; \
	install_completion zsh zsh/site-functions/_shoal; \
	install_completion fish fish/vendor_completions.d/shoal.fish

tools: ## install every tool that a target may need
	@$(tools) all
