# Ratekeeper's front door. `make demo` and `make test` need python3 (3.11 or later),
# make and CA certificates; everything else they set up themselves, in .venv.

PYTHON ?= python3
BIN := .venv/bin
PEERS := .venv-peers/bin/python

.PHONY: help demo test quick check lint types imports coverage fix lock clean run dev
.PHONY: bench-import peers bench-quota bench-engine bench-http bench-outage bench-tokens picture timing
.PHONY: node gateways bench-gateway bench-night soak scenarios

help: ## say what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1 \t\2/' | expand -t 24

run:
	@$(PYTHON) tools/house.py requirements/run.txt

dev:
	@$(PYTHON) tools/house.py requirements/dev.txt

demo: run ## the 2 a.m. story, without and with Ratekeeper, against a simulated provider (1 min)
	@$(BIN)/ratekeeper demo

node: dev
	@$(BIN)/python tools/node.py

test: dev node ## every test (4 min on two cores)
	$(BIN)/python -m pytest -n 2

quick: dev node ## every test but those that need real time
	$(BIN)/python -m pytest -n 2 -m "not slow"

check: lint types imports test coverage ## all that CI runs

lint: dev ## ruff: what it finds, and whether all is formatted
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: dev ## mypy --strict
	$(BIN)/mypy

imports: dev ## who may import whom (import-linter)
	$(BIN)/lint-imports

coverage: dev ## branch coverage of the pure floors: 100 % or red
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -q -p no:randomly tests/core tests/providers
	$(BIN)/coverage combine -q
	$(BIN)/coverage report --include='src/ratekeeper/core/*,src/ratekeeper/providers/*' --fail-under=100

bench-import: dev ## how long `import ratekeeper` takes, and what it loads
	@$(BIN)/python -m benchmarks.importing

peers: run
	@$(BIN)/python tools/peers.py

bench-quota: peers ## how much of a quota each limiter gets out, on a virtual clock (30 min)
	@$(PEERS) -m benchmarks.quota $(ARGS)

bench-engine: peers ## what a grant costs in time and memory, beside other limiters (3 min)
	@$(PEERS) -m benchmarks.engine $(ARGS)

bench-http: peers ## both official SDKs at full demand over real HTTP (5 min)
	@$(PEERS) -m benchmarks.sdks $(ARGS)

bench-outage: dev ## what a provider that is down for five minutes is sent (3 min)
	@$(BIN)/python -m benchmarks.outage $(ARGS)

bench-tokens: peers ## how far estimates of tokens are off, and what they cost (2 min)
	@$(PEERS) -m benchmarks.tokens $(ARGS)

timing: dev ## whether the time a wrong client key takes tells how wrong it is (2 min)
	@$(BIN)/python -m tests.security.timing $(ARGS)

soak: dev ## a gateway under load and random faults (30 min; ARGS=5 for five)
	@$(BIN)/python -m tests.soak $(ARGS)

scenarios: dev ## the gateway's failures by the thousand, in full size, with figures (5 min)
	@RATEKEEPER_SCENARIOS=full $(BIN)/python -m pytest -n 0 -rP --show-capture=stdout -m slow tests/faults $(ARGS)

gateways: run
	@$(BIN)/python tools/gateways.py

bench-gateway: gateways ## Ratekeeper with every limit on, beside other gateways (12 min)
	@$(BIN)/python -m benchmarks.gateway $(ARGS)

bench-night: gateways ## the 2 a.m. story over HTTP, against each gateway (9 min)
	@$(BIN)/python -m benchmarks.two_am $(ARGS)

picture: dev ## draw docs/algorithms.svg
	@$(BIN)/python tools/picture.py

fix: dev ## format, and mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: dev ## refresh the locks in requirements/
	$(BIN)/python tools/lock.py

clean: ## forget the environment and every cache
	rm -rf .venv .venv-peers .venv-gateways benchmarks/gateways/portkey/node_modules tests/gateway/node/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
