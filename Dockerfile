FROM golang:1.26 AS build
WORKDIR /src

# A layer of its own, so that a change of the code downloads nothing.
COPY go.mod go.sum ./
RUN go mod download

COPY . .
ARG VERSION=
RUN CGO_ENABLED=0 go build -buildvcs=false -trimpath -ldflags "-s -w -X main.version=$VERSION" \
    -o /out/async-data-processor ./cmd/async-data-processor
RUN mkdir /out/data

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/async-data-processor /
# A new named volume on /data takes over this folder's owner.
COPY --from=build --chown=65532:65532 /out/data /data

USER 65532:65532
ENV DATA_OUTPUT_DIR=/data
VOLUME /data
STOPSIGNAL SIGTERM
# The program is process 1, so the signal reaches it.
ENTRYPOINT ["/async-data-processor"]
CMD ["--help"]
