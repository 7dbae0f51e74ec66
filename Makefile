# The one way in. `make help` lists everything; CI calls the same targets.
#
#   make demo ARGS="--content film.mp4"     arguments for `larder demo`
#   make tests ARGS="-E 'test(ledger)'"     arguments for nextest

SHELL := /bin/bash
.NOTPARALLEL:
.DEFAULT_GOAL := help

TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
# Browsers come from the system's packages, not from npm.
export PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD := 1
export PUPPETEER_SKIP_DOWNLOAD := 1

# Units, and those in tests/ that start no programs. All else in tests/ starts the real ones.
FAST := kind(lib) + binary(tidy) + binary(fuzz_replay) + binary(list) + binary(sim)
NEXTEST := cargo nextest run --locked

.PHONY: help
help: ## List the targets.
	@grep -hE '^[a-z][a-z0-9-]*:.*## ' $(MAKEFILE_LIST) | \
		sed -E 's/^([a-z0-9-]+):.*## (.*)/\1\t\2/' | while IFS=$$'\t' read -r name text; do \
		printf '  %-12s %s\n' "$$name" "$$text"; done

##### For people

.PHONY: demo
demo: ## Run the whole chain on this machine: hub, device, content, earnings.
	cargo build --locked --bins
	$(TARGET_DIR)/debug/larder demo $(ARGS)

.PHONY: test
test: ## Install what is missing, then run everything that CI runs.
	@scripts/steps setup lint bench-check web-check deny arm-check size e2e-web tests

.PHONY: check
check: ## The fast loop: formatting, clippy, unit and architecture tests.
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	$(NEXTEST) -E '$(FAST)' $(ARGS)

##### The parts

.PHONY: setup
setup: ## Install the packages and tools that the tests need.
	@scripts/setup

.PHONY: lint
lint: ## Formatting, clippy on every program by itself, links in the docs of the code.
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	cargo clippy --locked --no-default-features -- -D warnings
	cargo clippy --locked --no-default-features --features hub -- -D warnings
	cargo clippy --locked --no-default-features --features cli -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps --document-private-items --quiet

.PHONY: tests
tests: ## All Rust tests: units, architecture, and the programs with real clients.
	$(NEXTEST) $(ARGS)

.PHONY: e2e
e2e: ## Only the tests of whole programs with real clients.
	$(NEXTEST) -E 'not ($(FAST))' $(ARGS)

.PHONY: crash
crash: ## Kill larderd 1,000 times, and cut its power 1,000 times (20 minutes). CI does fewer.
	LARDER_CRASH_POINTS=1000 LARDER_TORN_POINTS=1000 $(NEXTEST) --profile long \
		--test crash --test torn --no-capture $(ARGS)

.PHONY: fuzz
fuzz: ## Fuzz every parser for a bounded time each (FUZZ_SECONDS=120); needs a nightly compiler. TARGETS="mse session" chooses.
	@scripts/fuzz $(TARGETS)

.PHONY: fuzz-seeds
fuzz-seeds: ## Write into fuzz/corpus what our encoders write today.
	$(NEXTEST) --test fuzz_replay --run-ignored only

.PHONY: deny
deny: ## Licences, bans and sources of the dependencies; advisories where they can be fetched.
	@scripts/deny

.PHONY: arm-check
arm-check: ## Check that larderd compiles for 64-bit ARM routers.
	scripts/arm-check

.PHONY: size
size: ## Release sizes and idle memory; fails over the budget (larderd: 12 MiB, 25 MiB resident).
	@scripts/size

##### Measurements

.PHONY: bench-seeders
bench-seeders: ## Compare Larder with other seeders, as root; writes docs/benchmarks.md (25 minutes; ARGS=--quick: 10).
	cargo build --locked --release --bin larderd --example load --example floor
	benches/seeders/compare.py --programs $(abspath $(TARGET_DIR))/release/examples $(ARGS)

.PHONY: bench-sending
bench-sending: ## Compare ways for blocks to leave, as anyone (3 minutes); docs/adr/0020 is about it.
	cargo build --locked --release --example sending
	$(TARGET_DIR)/release/examples/sending $(ARGS)

.PHONY: bench-household
bench-household: bench-check ## What a household notices of Larder, as root; writes docs/household.md (20 minutes; ARGS=--quick: 2).
	cargo build --locked --release --bin larderd --example load --example delay_relay
	benches/household/bench.py --programs $(abspath $(TARGET_DIR))/release $(ARGS)

.PHONY: bench-fill
bench-fill: ## What a fill leaves of a household's download, and what it costs the flash, as root (4 minutes).
	cargo build --locked --release --bins --example delay_relay
	benches/household/fill.py --programs $(abspath $(TARGET_DIR))/release
	benches/flash/fill.py --programs $(abspath $(TARGET_DIR))/release

.PHONY: bench-check
bench-check: ## Unit tests of how the household bench reckons.
	python3 -m unittest discover -q -s benches/household

.PHONY: bench-flash
bench-flash: ## Measure what the ledger costs the flash, as root (17 minutes); docs/adr/0025 is about it.
	cargo build --locked --release --example wear
	benches/flash/run.sh $(abspath $(TARGET_DIR))/release/examples/wear $(ARGS)

.PHONY: bench-hostile
bench-hostile: ## Measure what honest peers notice of hostile ones, as root; writes docs/hostile.md (5 minutes).
	cargo build --locked --release --bin larderd --example load --example attack
	benches/hostile/run.py --larderd $(abspath $(TARGET_DIR))/release/larderd \
		--load $(abspath $(TARGET_DIR))/release/examples/load \
		--attack $(abspath $(TARGET_DIR))/release/examples/attack $(ARGS)

##### The owner's page

.PHONY: web
web: ## Build the owner's page into web-ui/dist, which the binary embeds.
	cd web-ui && npm ci --no-audit --no-fund && npm run build

.PHONY: web-check
web-check: ## Types and unit tests of the page; web-ui/dist is the build of its source.
	cd web-ui && npm ci --no-audit --no-fund && npm test && npm run check-dist

.PHONY: e2e-web
e2e-web: ## The owner's page in a real browser, against the real programs.
	cargo build --locked --bins
	cd web-ui && npm ci --no-audit --no-fund && LARDER_BIN=$(abspath $(TARGET_DIR))/debug/larder npm run e2e
