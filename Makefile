# make test     everything that must pass before a change lands; installs what it needs
# make run      the demo gateway
# make release  the binary to install, target/trained/tollgate (about fifty minutes, two cores)
# make bench    make release, then benchmarks; writes benches/RESULTS.md and benches/STORES.md (another hour)

CARGO ?= cargo
# nextest shows and ends tests that hang; cargo's own runner serves where it is missing.
RUNNER := $(shell $(CARGO) nextest --version >/dev/null 2>&1 && echo "nextest run" || echo "test")

.PHONY: test tools format lint docs rust sdk page run release bench

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

release: tools
	benches/release.sh

bench: release
	target/bench/release/door --gateway target/trained/tollgate
	benches/stores.sh
