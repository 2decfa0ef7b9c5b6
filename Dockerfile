# Image of mass_jax, for xpk and other container platforms.
#
#   docker build --build-arg ACCELERATOR=cuda12 --tag=mass_jax .
#   docker run --gpus=all --volume="$PWD/runs:/runs" mass_jax --preset=tiny --workdir=/runs/tiny
#
# CUDA comes from the wheels of jax[cuda12] or jax[cuda13]; the host needs NVIDIA's driver and container toolkit only.
FROM python:3.12-slim

# One of cpu, cuda12, cuda13, tpu.
ARG ACCELERATOR=cpu
# Further extras of mass_jax, separated by commas, such as gcs,wandb.
ARG EXTRAS=
# Give root where the devices of the host require it.
ARG RUN_AS=mass

ENV PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

WORKDIR /opt/mass_jax
COPY setup.py pyproject.toml README.md LICENSE ./
COPY mass_jax mass_jax
COPY experiments experiments
COPY third_party third_party

RUN case "$ACCELERATOR" in \
        cpu) extras="math${EXTRAS:+,$EXTRAS}" ;; \
        cuda12|cuda13|tpu) extras="math,$ACCELERATOR${EXTRAS:+,$EXTRAS}" ;; \
        *) echo "ACCELERATOR=$ACCELERATOR is unknown; give cpu, cuda12, cuda13 or tpu" >&2; exit 2 ;; \
    esac \
    && pip install --no-cache-dir --editable ".[$extras]" \
    && useradd --create-home --uid 1000 mass

USER ${RUN_AS}
ENTRYPOINT ["python", "-m", "experiments.train"]
