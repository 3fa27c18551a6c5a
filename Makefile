.PHONY: help setup build test demo bench-cpu bench-gpu figures golden gallery nightly clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed 's/:.*## /\t/' | expand -t 12

setup: ## install what is missing (LLVM 22, a Vulkan driver, a Python environment)
	@scripts/setup.sh

build: setup ## target/release/attnc, with PTX where LLVM 22 is installed
	@scripts/cargo.sh build --release -p attnc

test: setup ## all tests, and conformance with the oracles where ../shared is
	@scripts/test.sh

demo: build ## examples on the activations of a real model
	@scripts/demo.sh

bench-cpu: build ## times and PyTorch peers on this processor; ARGS='--cases full --shapes 2048x64 ..' for a part
	@scripts/bench_cpu.sh $(ARGS)

figures: setup ## tests/data/ptx.txt: registers and shared memory of every example's PTX
	@scripts/cargo.sh test --profile ci -p attnc-tests --test it -- --ignored ptx::write_figures

golden: setup ## tests/golden from the oracles, where ../shared is
	@.venv/bin/python scripts/golden.py

bench-gpu: build ## our kernels and their peers (torch, fla, mlstm_kernels) on an NVIDIA GPU, with ratios
	@python3 scripts/bench-gpu.py

gallery: ## docs/gallery.md from the examples
	@scripts/gallery.sh

nightly: ## more random programs (2,000), and the gallery to the letter
	@ATTNC_NIGHTLY=1 ATTNC_SEEDS=0..2000 cargo test --profile ci -p attnc-tests --test it -- random examples

clean: ## remove build results
	@cargo clean
	@rm -rf .venv .venv-bench
