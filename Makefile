# The two commands that do everything on a fresh machine are `make demo` and `make test`; both install what is missing.

# rustup's folder goes last: a cargo that is already on the PATH wins.
CARGO = PATH="$$PATH:$${CARGO_HOME:-$$HOME/.cargo}/bin" cargo

.PHONY: demo test lint clean

demo: ## fine-tune the small ViT of assets/ plainly and with TPGM; table on the terminal, page in runs/demo/report.html
	@tools/setup.sh
	$(CARGO) run --release -- demo --out runs/demo

test: ## every test, in release mode
	@tools/setup.sh test
	$(CARGO) test --release

lint: ## formatting, clippy and the documentation, warnings as errors
	@tools/setup.sh lint
	$(CARGO) fmt --check -- src/cpu/*.rs src/ops/*.rs # modules that src/stems.rs declares, where rustfmt can't see them
	$(CARGO) clippy --release --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --release --no-deps

clean: ## what was built, and the demo's run; other runs stay
	-$(CARGO) clean
	rm -rf runs/demo
