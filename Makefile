# make test   everything that must pass before a change lands; installs what it needs
# make run    the demo gateway
# make bench  benchmarks; writes benches/RESULTS.md and benches/STORES.md (about an hour, two cores)

CARGO ?= cargo
# nextest shows and ends tests that hang; cargo's own runner serves where it is missing.
RUNNER := $(shell $(CARGO) nextest --version >/dev/null 2>&1 && echo "nextest run" || echo "test")

.PHONY: test tools format lint docs rust sdk page run bench

test: tools format lint docs rust sdk page

tools:
	.ci/tools

format:
	$(CARGO) fmt --check

lint:
	$(CARGO) clippy --all-targets -- -D warnings

docs:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --document-private-items --quiet

rust:
	$(CARGO) build
	$(CARGO) $(RUNNER)

sdk:
	tests/sdk/run

page:
	tests/page/run

run:
	$(CARGO) run --release

bench:
	$(CARGO) build --release
	$(CARGO) build --release --manifest-path benches/Cargo.toml --target-dir target/bench
	target/bench/release/door
	benches/stores.sh
