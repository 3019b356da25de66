# The two commands that do everything on a fresh machine are `make demo` and `make test`; both install what is missing.

# rustup's folder goes last: a cargo that is already on the PATH wins.
CARGO = PATH="$$PATH:$${CARGO_HOME:-$$HOME/.cargo}/bin" cargo
# Of what is tested and linted. `make test FEATURES=` is without MPI.
FEATURES = --features mpi
# Modules that src/stems.rs declares: rustfmt does not see them.
STEMS = src/cpu/*.rs src/ops/*.rs
# The test binaries but the one that runs beside them, and the one that is there with MPI alone.
TESTS = $(filter-out memory $(if $(FEATURES),,mpi),$(basename $(notdir $(wildcard tests/*.rs))))

.PHONY: demo test lint format clean

demo: ## fine-tune the small ViT of assets/ plainly and with TPGM; table on the terminal, page in runs/demo/report.html
	@tools/setup.sh
	$(CARGO) run --release -- demo --out runs/demo

# The unit tests take no time, but the library would be optimised a second time for them: 30 instead of 190 CPU seconds.
# The test of ten thousand steps uses one core and has to be a process of its own: it runs beside the others.
test: ## every test, in release mode
	@FEATURES='$(FEATURES)' tools/setup.sh test
	$(CARGO) test --release $(FEATURES) --lib --config profile.release.package.tpgm.opt-level=0
	$(CARGO) test --release $(FEATURES) --bins --examples $(TESTS:%=--test %) --test memory --no-run
	@log=$$(mktemp); $(CARGO) test --release $(FEATURES) --test memory >"$$log" 2>&1 & memory=$$!; \
	$(CARGO) test --release $(FEATURES) --bins --examples $(TESTS:%=--test %); others=$$?; \
	wait $$memory; memory=$$?; cat "$$log"; rm -f "$$log"; [ $$others = 0 ] && [ $$memory = 0 ]
	$(CARGO) test --release $(FEATURES) --doc

# The program that most have is the one without features.
lint: ## formatting, clippy and the documentation, warnings as errors
	@FEATURES='$(FEATURES)' tools/setup.sh lint
	$(CARGO) fmt --check -- $(STEMS)
	$(CARGO) clippy --release $(FEATURES) --all-targets -- -D warnings
	$(CARGO) clippy --release -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --release $(FEATURES) --no-deps

format: ## rustfmt over every file
	$(CARGO) fmt -- $(STEMS)

clean: ## what was built, and the demo's run; other runs stay
	-$(CARGO) clean
	rm -rf runs/demo
