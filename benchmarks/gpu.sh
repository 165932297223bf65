#!/usr/bin/env bash
# On a GPU node, from nothing: installs, checks that results are right, measures; a short table comes last.
#   bash benchmarks/gpu.sh [tensorflow|jax]
# Under 8 minutes besides what is downloaded. Where there is no GPU it says so and goes the same ways on the CPU.
set -euo pipefail
cd "$(dirname "$0")/.."
export KERAS_BACKEND=${1:-tensorflow} TF_CPP_MIN_LOG_LEVEL=3
case $KERAS_BACKEND in tensorflow | jax) ;; *) echo "benchmarks/gpu.sh: $KERAS_BACKEND: say tensorflow or jax" >&2; exit 2 ;; esac
nvidia-smi -L || echo "no GPU: what follows is the CPU's"
# PYTHON=<path> takes an environment that is there, as on a node without a network.
if [ -z "${PYTHON:-}" ]; then
	make setup
	PYTHON=.venv/bin/python
	# JAX for GPUs comes with CUDA's libraries; the lock has the one for CPUs.
	if [ "$KERAS_BACKEND" = jax ] && nvidia-smi -L >/dev/null 2>&1; then .venv/bin/uv pip install -q --python $PYTHON "jax[cuda12]>=0.10,<0.11"; fi
fi
"$PYTHON" -m fer_experiments.cli doctor
echo "== correct: engines against Keras, fits against Keras' own, pruning"
"$PYTHON" -m pytest -n 0 tests/features/test_engines.py tests/training/test_fit.py tests/training/test_pruning.py
mkdir -p benchmarks/results
out=benchmarks/results/gpu-$KERAS_BACKEND
echo "== extraction, heads, a trial outside its fit"
"$PYTHON" benchmarks/bench_features.py --images 1024 --rounds 2 --whole 0 --json "$out-features.json" | tee "$out.txt"
"$PYTHON" benchmarks/bench_heads.py --rounds 1 --json "$out-heads.json" | tee -a "$out.txt"
"$PYTHON" benchmarks/flat_cost.py --trials 30 --json "$out-trial.json" | tee -a "$out.txt"
echo "== in short (also in $out.txt)"
nvidia-smi --query-gpu=name,memory.total --format=csv,noheader 2>/dev/null || "$PYTHON" -c "from fer_experiments.environment import hardware; print(hardware()['cpu'])"
cat "$out.txt"
