# The service alone; docker-compose.yml puts Redis and MySQL beside it.
FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends build-essential
COPY . .
RUN cargo build --release --locked --bin stock-online

FROM debian:bookworm-slim
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends curl \
    && rm -rf /var/lib/apt/lists/* && useradd --system --uid 10001 stock
COPY --from=build /src/target/release/stock-online /usr/local/bin/stock-online
USER stock
EXPOSE 8080
ENTRYPOINT ["stock-online"]
CMD ["serve"]
