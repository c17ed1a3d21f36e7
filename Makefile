# One word per job. `make run` is all that a newcomer needs.

CARGO ?= cargo
PORT ?= 8080
ARGS ?=

.PHONY: help run test test-compat browser book check fmt contract fuzz bench faults faults-short alerts scale jmeter locust up down compose-check deploy-check container-check install clean

help:
	@echo "make run     install what is missing, build, start everything on :$(PORT)"
	@echo "make test    install what is missing, run all tests on servers of their own"
	@echo "make test-compat  the tests on Redis 8, Valkey and MySQL 9 (needs root for debootstrap)"
	@echo "make browser the pages in headless Chromium; pictures in target/screenshots"
	@echo "make check   formatting, lints, documentation, all warnings errors; licenses, if cargo-deny is there"
	@echo "make contract  the served OpenAPI document: lints, and random requests against it"
	@echo "make fuzz    decoders against random bytes, a minute each (SECONDS_EACH=)"
	@echo "make bench   each figure beside its ceiling, into docs/performance.md"
	@echo "make faults  everything that can break, one line each (SEED=, ROUNDS=)"
	@echo "make alerts  each fault as metrics show it, against the alerts that must fire, a quarter of a minute"
	@echo "make scale   instances behind nginx on a Redis Cluster, killed, replaced, moved and rehomed under load"
	@echo "make jmeter  the JMeter comparison, with a report in jmeter/report"
	@echo "make locust  Locust on the calls of docs/seeds.md, which may fail no request, then verify (SECONDS_EACH=, PLANS=)"
	@echo "make up      the image, Redis and MariaDB with Docker Compose, on :8080 (first: cp .env.example .env)"
	@echo "make down    stops them; the data stays"
	@echo "make deploy-check  the files of deploy/ on kubectl, nginx and Redis, half a minute"
	@echo "make container-check  the image and both Compose files on Podman (CONTAINERS_SETUP=, ARGS='--program FILE'), as root"
	@echo "make book    docs/ as a book in target/book"
	@echo "make fmt     format the sources"

install:
	@sh scripts/install.sh servers

run: install
	$(CARGO) build --profile trial --locked -p stock-online --bin stock-online \
		--no-default-features --features dev
	./target/trial/stock-online dev --port $(PORT) $(ARGS)

test: install
	@sh scripts/install.sh backup
	$(CARGO) test --workspace --locked

check: install
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	$(CARGO) clippy -p stock-online --bin stock-online --no-default-features --features jemalloc --locked -- -D warnings
	$(CARGO) clippy --manifest-path fuzz/Cargo.toml --locked --target-dir target/fuzz -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --locked --document-private-items
	@if command -v cargo-deny >/dev/null; then \
		$(CARGO) deny --offline --log-level error check bans licenses sources; \
	else \
		echo "not checked here, but in the workflow: licenses, bans, sources (cargo install --locked cargo-deny)"; \
	fi

fmt:
	$(CARGO) fmt --all

bench: install
	@sh scripts/install.sh wrk
	$(CARGO) build --release --locked --bins
	./target/release/bench --docs docs $(ARGS)

test-compat: install
	@sh scripts/install.sh compat
	bash scripts/compat.sh

contract: install
	@sh scripts/install.sh contract
	$(CARGO) build --locked -p stock-online --bin stock-online --example order
	bash scripts/contract.sh

# Two browsers at a time: each takes half a core.
browser: install
	@sh scripts/install.sh browser
	@python3 -m venv target/browser && target/browser/bin/pip install -q --no-deps axe-playwright-python==0.1.8
	@cp target/browser/lib/python3*/site-packages/axe_playwright_python/axe.min.js target/browser/axe.min.js
	$(CARGO) test --locked -p stock-online --test browser -- --test-threads 2

book:
	@command -v mdbook >/dev/null || $(CARGO) install --locked mdbook --version 0.5.4
	@command -v mdbook-mermaid >/dev/null || $(CARGO) install --locked mdbook-mermaid --version 0.17.1
	mdbook-mermaid install docs
	mdbook build docs

# Needs cargo-fuzz and a nightly compiler: cargo install cargo-fuzz; rustup toolchain install
# nightly
fuzz:
	for target in order_json cursor journal_entry script_reply; do \
		mkdir -p fuzz/corpus/$$target; \
		cargo +nightly fuzz run $$target fuzz/corpus/$$target fuzz/seeds/$$target -- -max_total_time=$(or $(SECONDS_EACH),60) || exit 1; \
	done

faults: install
	@sh scripts/install.sh faults
	@sh scripts/install.sh alerts
	$(CARGO) build --release --locked --bins
	./target/release/faults $(if $(SEED),--seed $(SEED)) $(if $(ROUNDS),--rounds $(ROUNDS)) $(ARGS)

scale: install
	@sh scripts/install.sh scale
	$(CARGO) build --release --locked --bins
	./target/release/scale $(if $(SEED),--seed $(SEED)) $(ARGS)

# CI runs this: one fault of each kind and a round of random pairs, on the debug build.
faults-short: install
	$(CARGO) build --locked --bins
	./target/debug/faults --only F1,F2,F3,F5,F7,F12,F14,F18,F20,F29,F32,F36 --seed $(or $(SEED),1)
	./target/debug/faults --seed $(or $(SEED),1) --rounds 1

alerts:
	@sh scripts/install.sh alerts
	promtool check config observability/prometheus.yml
	promtool test rules observability/alerts_test.yml

jmeter: install
	@sh scripts/install.sh jmeter
	$(CARGO) build --release --locked --bin stock-online
	bash jmeter/run.sh

locust: install
	@sh scripts/install.sh locust
	$(CARGO) build --locked -p stock-online --bin stock-online --example order
	bash scripts/locust.sh

up:
	docker compose up --build -d

down:
	docker compose down

compose-check:
	docker compose config --quiet
	docker compose -f docker-compose.cluster.yml config --quiet

# kubernetes-validate carries the schemas of every Kubernetes version in itself; nothing is fetched
# while it runs.
deploy-check:
	@sh scripts/install.sh deploy
	@python3 -m venv target/deploy && target/deploy/bin/pip install -q kubernetes-validate==1.37.0 PyYAML==6.0.3
	target/deploy/bin/python scripts/deploy_check.py $(ARGS)

# Too heavy for every submission: the image's first stage builds the program anew, and then servers
# of both shops are killed for ten minutes.
container-check:
	@python3 -m venv target/containers && target/containers/bin/pip install -q podman-compose==1.6.0 PyYAML==6.0.3
	target/containers/bin/python scripts/container_check.py $(ARGS)

clean:
	$(CARGO) clean
	rm -rf jmeter/.cache jmeter/report
