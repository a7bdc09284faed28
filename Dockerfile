# The attnd server and attnctl on Debian bookworm.
#   docker build -t attnd .
#   docker run --rm -p 50051:50051 attnd                               the embedded models
#   docker run --rm -p 50051:50051 -v "$PWD/models:/models:ro" attnd   and those in ./models
FROM debian:bookworm-slim AS build
WORKDIR /src
COPY scripts/setup.sh scripts/lib.sh scripts/packages.txt scripts/
RUN scripts/setup.sh && rm -rf /var/lib/apt/lists/*
COPY . .
RUN cmake --preset release -DATTND_TESTS=OFF -DATTND_BENCH=OFF \
    && cmake --build --preset release --target attnd attnctl \
    && install -D --strip --target-directory=/out/bin $(find build -type f -executable '(' -name attnd -o -name attnctl ')')

FROM debian:bookworm-slim
# A fresh named volume at /run/attnd takes over that folder's owner, so that the server can put its sockets there.
# The -dev packages' shared libraries, and no compiler.
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends libgrpc++1.51 libspdlog1.10 \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt /var/log/apt /var/log/dpkg.log \
    && mkdir /models \
    && install -d -o 65532 -g 65532 /run/attnd
COPY --from=build /out/bin/ /usr/local/bin/
COPY LICENSE /usr/share/doc/attnd/LICENSE
# Fails the build if the two lists above do not fit together.
RUN attnd --version && attnctl --help >/dev/null

# A number, so that Kubernetes can see that it is not root. Nothing below / needs to be writable.
USER 65532:65532
EXPOSE 50051
# Flags after the image's name are added to these; the last of a kind wins.
ENTRYPOINT ["attnd", "--listen=0.0.0.0:50051", "--model_root=/models"]
# At 127.0.0.1:50051, or where ATTND_SERVER says that the server listens.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["attnctl", "health"]
STOPSIGNAL SIGTERM
