# A replica with Debian's Suricata and CRIU.  docker build -t ftnids . ; replicas/container/compose.yaml runs two of them.
# Snort 3 is in no Debian release: --build-arg SNORT=IMAGE takes it from /opt/snort of an image of yours, libraries included.
ARG SNORT=debian:13-slim

FROM debian:13-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends \
        gcc g++ libc6-dev pkgconf libpcap-dev libxxhash-dev python3-dev python3-venv
COPY . /src
RUN python3 -m venv /opt/ftnids && /opt/ftnids/bin/pip install --no-cache-dir '/src[redis]'

FROM ${SNORT} AS snort
RUN mkdir -p /opt/snort

FROM debian:13-slim
RUN apt-get update && apt-get install -y --no-install-recommends \
        python3 libpcap0.8t64 suricata criu iproute2 ethtool procps && \
    rm -rf /var/lib/apt/lists/*
# The number is fixed, so that keys on the host can be given to it: chown -R 840 set/keys
RUN useradd --system --uid 840 --home-dir / --shell /usr/sbin/nologin ftnids && \
    install -d -o ftnids -g ftnids -m 0700 /var/log/ftnids
COPY --from=build /opt/ftnids /opt/ftnids
COPY --from=snort /opt/snort /opt/snort
ENV PATH=/opt/ftnids/bin:/opt/snort/bin:$PATH
# Degraded is no fault of this container; down is.
HEALTHCHECK --start-period=90s CMD ["sh", "-c", "ftnids status -c /etc/ftnids/replica.toml >/dev/null; test $? -lt 2"]
ENTRYPOINT ["ftnids"]
CMD ["run", "-c", "/etc/ftnids/replica.toml"]
