# Everything that people and CI run in this repository. `make` prints the list.
#
# Needs Go, make and git; `race` also gcc; `lab-test` root and the packages in
# .ci/debian-packages. Nothing is written into the tree except bin/.

# Where built tools are kept between checkouts.
FETTLE_TOOL_CACHE ?= $(HOME)/.cache/fettle-tools
# What every run of tests gets besides: CI sets -count=1, to believe no cache.
TESTFLAGS ?=
# How long one fuzz target runs in `make fuzz`.
FUZZTIME ?= 3s
# How many seeds `make sim-test` runs.
SIM_SEEDS ?= 2000
# How many seeds of whole fleets it runs besides, and how many agents in one fleet.
WHOLE_SEEDS ?= 20
WHOLE_HOSTS ?= 1000
# Which tests `make lab-test` runs, by -run or -skip.
LABFLAGS ?=
# How long one benchmark runs in `make bench`.
BENCHTIME ?= 1s

# The tools, each at one version. protoc-gen-go has none here: it is built from
# the module that the binary links, so that generated code and library agree.
GOLANGCI_VERSION        = v2.15.0
BUF_VERSION             = v1.75.0
PROTOC_GEN_GRPC_VERSION = v1.6.2

# The size that the binary may have, in bytes. Each library shows in it.
SIZE_BUDGET = 60000000

VERSION = $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
GOLANGCI = $(FETTLE_TOOL_CACHE)/golangci-lint-$(GOLANGCI_VERSION)
SHELL = /bin/bash
.SHELLFLAGS = -euo pipefail -c
.DEFAULT_GOAL = help

##@ Build and look

.PHONY: help
help: ## Print this list
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@ / { printf "\n%s\n", substr($$0, 5); next } \
	  /^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

.PHONY: build
build: ## Build the one static binary, bin/fettle
	CGO_ENABLED=0 go build -trimpath -buildvcs=false \
	  -ldflags '-s -w -X main.version=$(VERSION)' -o bin/fettle ./cmd/fettle

.PHONY: demo
demo: build ## Break and mend a real etcd cluster here; no root, about 2 minutes
	bin/fettle demo

.PHONY: size
size: build ## Check that the binary is static and within its size budget
	@size=$$(stat -c %s bin/fettle); echo "bin/fettle: $$size bytes of $(SIZE_BUDGET)"; \
	if [ $$size -gt $(SIZE_BUDGET) ]; then echo "too big: what was linked? (go version -m bin/fettle)" >&2; exit 1; fi; \
	if ldd bin/fettle >/dev/null 2>&1; then echo "not static: what needs cgo?" >&2; exit 1; fi

##@ Test

.PHONY: test
test: ## Vet and test everything that needs no root; a real sshd is the one thing besides Go
	@[ -x /usr/sbin/sshd ] && command -v ssh >/dev/null || { echo "make test runs a real sshd on the loopback: apt-get install openssh-server openssh-client" >&2; exit 1; }
	go vet ./...
	packages=$$(.ci/lab-packages); go vet -tags lab $$packages; go vet -tags labkill ./internal/act/moment
	go test -parallel 6 $(TESTFLAGS) ./... # most of what takes time waits

.PHONY: race
race: ## The same tests in short under the race detector (needs gcc)
	.ci/race $(TESTFLAGS)

.PHONY: fuzz-seeds
fuzz-seeds: ## Run every fuzz target on its seeds only
	.ci/fuzz seeds

.PHONY: fuzz
fuzz: ## Fuzz every target for FUZZTIME (3s), one after another
	.ci/fuzz $(FUZZTIME)

.PHONY: crash-test
crash-test: ## Kill server, agent or both at every moment of every runbook, about 8 minutes
	go vet -tags crash ./internal/sim/crash
	go test -tags crash -count=1 -timeout 25m -run '^TestKilled$$' -v ./internal/sim/crash

.PHONY: sim-test
sim-test: ## A pretended fleet, broken by SIM_SEEDS seeds; 2,000 take about 10 minutes
	GOGC=400 go test -count=1 -timeout 40m -run '^TestSeeds$$' -v ./internal/sim -sim.seeds $(SIM_SEEDS)
	GOGC=400 go test -count=1 -timeout 40m -v ./internal/sim/whole -whole.seeds $(WHOLE_SEEDS) -whole.twice 4 -whole.hosts $(WHOLE_HOSTS)

.PHONY: guards-test
guards-test: ## Show that each guard matters: without it a seed breaks an invariant; about 5 minutes
	go vet -tags sim ./internal/judge/incident
	GOGC=400 go test -tags sim -count=1 -timeout 20m -run '^TestEveryGuardMatters$$' -v ./internal/judge/incident

.PHONY: lab-test
lab-test: ## Test on real Debian hosts with real systems (root)
	@if [ "$$(id -u)" != 0 ]; then echo "make lab-test boots hosts and needs root: sudo make lab-test" >&2; exit 1; fi
	packages=$$(.ci/lab-packages); go test -tags lab -p 1 -count=1 -timeout 55m $(LABFLAGS) -v $$packages

# The commit that `make skew-test` takes for the release before this one.
OLDER ?= a2d1c8c

.PHONY: skew-test
skew-test: ## Servers and agents of this and of an older version (OLDER, a commit) together (root)
	@if [ "$$(id -u)" != 0 ]; then echo "make skew-test boots hosts and needs root: sudo make skew-test" >&2; exit 1; fi
	@git cat-file -e '$(OLDER)^{commit}' || { echo "commit $(OLDER) is not in this clone: git fetch --unshallow" >&2; exit 1; }
	older=$$(mktemp -d) && trap 'rm -rf "$$older"' EXIT && git archive $(OLDER) | tar -x -C "$$older" && \
	(cd "$$older" && CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w -X main.version=older' -o "$$older/fettle-older" ./cmd/fettle) && \
	FETTLE_OLDER="$$older/fettle-older" go test -tags 'lab skew' -count=1 -timeout 20m -run '^TestLabSkew$$' -v ./lab/spine

.PHONY: bench
bench: ## Run every benchmark, without the tests
	go test -run '^$$' -bench . -benchmem -benchtime $(BENCHTIME) -p 1 ./...

##@ Before a commit

.PHONY: lint
lint: $(GOLANGCI) ## Run the linters of .golangci.yml
	$(GOLANGCI) run ./...

.PHONY: ci
ci: ## Do all that CI does (root; installs Debian packages that are missing)
	bash .ci/run

##@ Now and then

.PHONY: linked-deps
linked-deps: ## Accept the modules that the binary links now
	go test ./internal/repolint -run TestLinkedDependencies -update

.PHONY: generate
generate: $(FETTLE_TOOL_CACHE)/buf-$(BUF_VERSION) $(FETTLE_TOOL_CACHE)/protoc-gen-go-grpc-$(PROTOC_GEN_GRPC_VERSION) ## Make the committed generated code anew
	@mkdir -p $(FETTLE_TOOL_CACHE)/path
	GOBIN=$(FETTLE_TOOL_CACHE)/path go install google.golang.org/protobuf/cmd/protoc-gen-go
	ln -sf $(FETTLE_TOOL_CACHE)/buf-$(BUF_VERSION) $(FETTLE_TOOL_CACHE)/path/buf
	ln -sf $(FETTLE_TOOL_CACHE)/protoc-gen-go-grpc-$(PROTOC_GEN_GRPC_VERSION) $(FETTLE_TOOL_CACHE)/path/protoc-gen-go-grpc
	PATH="$(FETTLE_TOOL_CACHE)/path:$$PATH" go generate ./...

.PHONY: clean
clean: ## Remove what building left in the tree
	rm -rf bin

# install-tool MODULE@VERSION: builds it in a folder of its own, then moves it in
# place, so that a build that was broken off leaves nothing that looks ready.
define install-tool
	@mkdir -p $(FETTLE_TOOL_CACHE)
	into=$$(mktemp -d $(FETTLE_TOOL_CACHE)/build.XXXXXX); trap 'rm -rf "$$into"' EXIT; \
	GOFLAGS= GOBIN="$$into" go install $(1); mv "$$into"/* $@
endef

$(GOLANGCI):
	$(call install-tool,github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION))

$(FETTLE_TOOL_CACHE)/buf-$(BUF_VERSION):
	$(call install-tool,github.com/bufbuild/buf/cmd/buf@$(BUF_VERSION))

$(FETTLE_TOOL_CACHE)/protoc-gen-go-grpc-$(PROTOC_GEN_GRPC_VERSION):
	$(call install-tool,google.golang.org/grpc/cmd/protoc-gen-go-grpc@$(PROTOC_GEN_GRPC_VERSION))
