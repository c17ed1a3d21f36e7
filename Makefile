# One word per job. `make run` is all that a newcomer needs.

CARGO ?= cargo
PORT ?= 8080
ARGS ?=

.PHONY: help run test check fmt contract bench faults jmeter compose-check install clean

help:
	@echo "make run     install what is missing, build, start everything on :$(PORT)"
	@echo "make test    install what is missing, run all tests on servers of their own"
	@echo "make check   formatting, lints, documentation, all warnings errors"
	@echo "make contract  random requests against the served OpenAPI document"
	@echo "make bench   each figure beside its ceiling, into docs/performance.md"
	@echo "make faults  everything that can break, one line each (SEED=, ROUNDS=)"
	@echo "make jmeter  the JMeter comparison, with a report in jmeter/report"
	@echo "make fmt     format the sources"

install:
	@sh scripts/install.sh servers

run: install
	$(CARGO) build --release --locked --bin stock-online
	./target/release/stock-online dev --port $(PORT) $(ARGS)

test: install
	$(CARGO) test --workspace --locked

check: install
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --locked --document-private-items

fmt:
	$(CARGO) fmt --all

bench: install
	@sh scripts/install.sh wrk
	$(CARGO) build --release --locked --bins
	./target/release/bench --docs docs $(ARGS)

contract: install
	@sh scripts/install.sh contract
	$(CARGO) build --locked --bin stock-online
	bash scripts/contract.sh

faults: install
	@sh scripts/install.sh faults
	$(CARGO) build --release --locked --bins
	./target/release/faults $(if $(SEED),--seed $(SEED)) $(if $(ROUNDS),--rounds $(ROUNDS)) $(ARGS)

jmeter: install
	@sh scripts/install.sh jmeter
	$(CARGO) build --release --locked --bin stock-online
	bash jmeter/run.sh

compose-check:
	docker compose config --quiet

clean:
	$(CARGO) clean
	rm -rf jmeter/.cache jmeter/report
