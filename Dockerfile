# A replica with Debian's Suricata and CRIU.  docker build -t ftnids . ; then, on the sensor:
#   docker run --network host --cap-add NET_RAW --cap-add NET_ADMIN --shm-size 1g -v /etc/ftnids:/etc/ftnids \
#     ftnids run -c /etc/ftnids/replica.toml
FROM debian:13-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends \
        gcc g++ libc6-dev pkgconf libpcap-dev libxxhash-dev python3-dev python3-venv
COPY . /src
RUN python3 -m venv /opt/ftnids && /opt/ftnids/bin/pip install --no-cache-dir /src

FROM debian:13-slim
RUN apt-get update && apt-get install -y --no-install-recommends \
        python3 libpcap0.8t64 suricata criu iproute2 ethtool procps && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/ftnids /opt/ftnids
ENV PATH=/opt/ftnids/bin:$PATH
ENTRYPOINT ["ftnids"]
