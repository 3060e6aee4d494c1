# What people type. Each target first installs what is missing (see .ci/setup), then does its work.

# More arguments of the demonstration: `make run ARGS=--once` ends by itself.
ARGS ?=
# Rounds of kill -9 in `make crash`.
ROUNDS ?= 200
# Dead letters whose replay is killed in `make crash`.
REPLAY ?= 2000
# Seconds for each target of `make fuzz`.
SECONDS ?= 60
# `make bench BENCH=append`: only that one (inline, buffer, append, memory, waiting, drain, backlog, lanes or soak).
BENCH ?=

.DEFAULT_GOAL := help
.PHONY: help setup run test bench crash fuzz

help: ## Show this
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what building needs and is missing
	@.ci/setup

run: setup ## The gateway before a demonstration app, with real events (ARGS=--once: then end)
	@cargo run --locked -- demo --config conf/quickstart.yaml $(ARGS)

test: setup ## All tests (promtool and the providers' own packages, with which some sign, come under target/)
	@.ci/setup sdk "$${CARGO_TARGET_DIR:-target}/sdk" || [ $$? -eq 3 ]
	@.ci/setup promtool "$${CARGO_TARGET_DIR:-target}/promtool" || [ $$? -eq 3 ]
	cargo test --locked

crash: setup ## kill -9 at random instants, ROUNDS times, and count what was lost; then while REPLAY dead letters are replayed
	ROUNDS=$(ROUNDS) REPLAY=$(REPLAY) cargo test --locked --test it -- --nocapture --test-threads 1 crash:: deadletters::a_replay_goes_on_after_a_kill

bench: ## Ratios against HAProxy, nginx with Lua and a bare log (release build; half an hour)
	@.ci/setup bench
	cargo bench --locked --bench verify
	cargo bench --locked --bench append -- $(BENCH)
	cargo bench --locked --bench gateway -- $(BENCH)

fuzz: setup ## Each fuzz target for SECONDS (needs cargo-fuzz and a nightly toolchain)
	@command -v cargo-fuzz >/dev/null 2>&1 || { echo "Please install cargo-fuzz: cargo install cargo-fuzz"; exit 1; }
	@for target in $$(cargo fuzz list); do \
	  echo "== $$target"; cargo +nightly fuzz run $$target -- -max_total_time=$(SECONDS) || exit 1; \
	done
