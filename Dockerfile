# A small image with tpgm and a Vulkan driver for CPUs and for AMD and Intel GPUs; docs/docker.md has the rest.
#
#   docker build -t tpgm --build-arg COMMIT="$(git rev-parse HEAD)" .

FROM rust:1-bookworm AS build
WORKDIR /src
COPY . .
# Without .git the build script reads the commit where cargo package notes it.
ARG COMMIT=
RUN if [ -n "$COMMIT" ]; then printf '{"git":{"sha1":"%s"}}' "$COMMIT" >.cargo_vcs_info.json; fi \
    && cargo build --profile dist --locked \
    && mkdir -p /out/share/bash-completion/completions \
    && cp target/dist/tpgm /out/tpgm \
    && /out/tpgm completions bash >/out/share/bash-completion/completions/tpgm \
    && /out/tpgm man --out /out/share/man/man1

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates libvulkan1 mesa-vulkan-drivers \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /out/tpgm /usr/local/bin/tpgm
COPY --from=build /out/share /usr/local/share
COPY LICENSE-MIT LICENSE-APACHE /usr/local/share/doc/tpgm/
# For NVIDIA's container toolkit: the driver's Vulkan part, which it leaves out by default.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,graphics,utility
# Any user may keep measurements there; mount a volume to keep them for the next container.
ENV TPGM_CACHE_DIR=/cache
RUN mkdir -m 1777 /cache
WORKDIR /data
ENTRYPOINT ["tpgm"]
CMD ["--help"]
