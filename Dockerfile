# The service alone: a program and the C library, no shell, an ordinary user. docker-compose.yml
# puts Redis and MariaDB beside it.
FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends build-essential
COPY . .
RUN cargo build --release --locked -p stock-online --no-default-features --features jemalloc --config 'profile.release.strip="symbols"'

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /src/target/release/stock-online /usr/local/bin/stock-online
ENV STOCK_HTTP_ADDR=0.0.0.0:8080
EXPOSE 8080
HEALTHCHECK --interval=2s --timeout=3s --retries=30 CMD ["stock-online", "ready"]
ENTRYPOINT ["stock-online"]
CMD ["serve"]
