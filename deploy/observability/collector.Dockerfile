# The collector alone, in an image without anything else.
FROM golang:1.26.8 AS build
WORKDIR /src
COPY . .
RUN cd collector && CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags='-s -w' -o /thurward-collector ./cmd/thurward-collector
FROM scratch
COPY --from=build /thurward-collector /thurward-collector
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
ENTRYPOINT ["/thurward-collector"]
