"""GPUs that can be compiled for without a GPU, through JAX's CUDA plugin."""

import os
from typing import Any

from jax.experimental import topologies

from mass_jax.errors import first_line

# Properties of the card, as XLA reads them from an attached one. NVIDIA's "H100 Tensor Core GPU Architecture" has the
# multiprocessors (132), the level-2 cache (50 MB) and the memory of the SXM5 card (80 GB HBM3, 3.35 TB/s); the CUDA C++
# Programming Guide has the limits of compute capability 9.0 (threads, registers, shared memory).
_H100 = """
gpu_device_info {
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: 233472
  shared_memory_per_block_optin: 232448
  threads_per_core_limit: 2048
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  core_count: 132
  fpus_per_core: 128
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000
  l2_cache_size: 52428800
  clock_rate_ghz: 1.98
  device_memory_size: 84929347584
  cuda_compute_capability { major: 9 }
  name: "NVIDIA H100 80GB HBM3"
  runtime_version: "13.0.0"
  driver_version: "13.0.0"
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 7 }
runtime_version { major: 13 minor: 0 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
CARDS = {"h100": _H100}
# Without the card, XLA cannot time products, and without times it has no tiles for those that Triton generates.
_NO_CARD = {"--xla_gpu_autotune_level": "0", "--xla_gpu_enable_triton_gemm": "false"}


def gpu_devices(topology: str) -> list[Any]:
    """Returns the GPUs of one host, for compiling without a GPU.

    Products are then cuBLAS's, in its default algorithm, as with XLA_FLAGS="--xla_gpu_autotune_level=0
    --xla_gpu_enable_triton_gemm=false" on the card. Call this before anything else is compiled for a GPU.

    Args:
        topology: card and number, such as "h100:1".

    Raises:
        ValueError: If the card is unknown, or its number is not positive.
        RuntimeError: If JAX's CUDA plugin is not installed.
    """
    card, _, count = topology.partition(":")
    if card not in CARDS or not count.isdecimal() or int(count) < 1:
        raise ValueError(f"--topology={topology!r} is unknown; write {', '.join(CARDS)} with a number, like h100:1")
    given = os.environ.get("XLA_FLAGS", "")
    missing = [f"{flag}={value}" for flag, value in _NO_CARD.items() if flag not in given]
    os.environ["XLA_FLAGS"] = " ".join([given, *missing]).strip()
    os.environ.setdefault("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "1")  # the plugin's check loads cuDNN and the driver
    try:
        described = topologies.get_topology_desc(
            platform="cuda", topology=f"1x1x{int(count)}", target_config=CARDS[card]
        )
        return list(described.devices)
    except Exception as error:
        reason = first_line(error)
        fix = 'is the CUDA plugin of this version of jax installed (`pip install "mass_jax[plan-cuda]"`)?'
        raise RuntimeError(f"cannot describe --topology={topology}: {reason}; {fix}") from None
