#!/usr/bin/env bash
# Measures a lent accelerator, then the peers in PyTorch:
#
#     bash experiments/benchmarks/accelerator.sh [PRESET] [OUT] [MINUTES] [XLA_FLAGS]
#
# PRESET is h100 or cpu. Rows are appended to OUT/accelerator.jsonl as they are measured. No case begins after MINUTES;
# the last fifth is for the peers. XLA_FLAGS replaces the flags that shorten compilation; give " " for XLA's defaults.
set -u
preset=${1:-cpu} out=${2:-runs/accelerator} minutes=${3:-5}
cd "$(dirname "$0")/../.." || exit 1
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
export XLA_PYTHON_CLIENT_PREALLOCATE=false TF_CPP_MIN_LOG_LEVEL=2 TOKENIZERS_PARALLELISM=false
if [ "$preset" = cpu ]; then
  default_flags="--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
else
  default_flags="--xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false"
fi
mkdir -p "$out"
end=$((SECONDS + ${minutes%.*} * 60)) # bash counts whole seconds
reserve=$((${minutes%.*} * 60 / 5))

left() { # minutes until the end, less the given seconds
  awk -v seconds=$((end - SECONDS - $1)) 'BEGIN { printf "%.2f", (seconds > 0 ? seconds : 0) / 60 }'
}

# A compilation cannot be interrupted, so a run that exceeds its time by half a minute is killed; its rows are written.
XLA_FLAGS="${4-$default_flags}" timeout --kill-after=5 $((end - SECONDS - reserve + 30)) \
  python3 -m experiments.benchmarks.accelerator --preset="$preset" --out="$out" --minutes="$(left $reserve)"
JAX_PLATFORMS=cpu timeout --kill-after=5 $((end - SECONDS + 30)) \
  python3 -m experiments.benchmarks.accelerator_peers --preset="$preset" --out="$out" --minutes="$(left 0)"
