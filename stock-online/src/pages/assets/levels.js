// Live levels: bars, numbers and buttons of the products and coupons on the page follow the stream of levels.

const format = new Intl.NumberFormat(document.documentElement.lang);
const OPEN = ["buy", "last-units"];
const RETRY_MS_MAX = 30000;

function setLevel(place, level) {
  const meter = place.querySelector("meter");
  if (meter) {
    if (level > meter.max) meter.max = level;
    meter.value = level;
  }
  const number = place.querySelector("[data-available]");
  if (number) number.textContent = format.format(level);
}

function productState(place, level) {
  const state = place.dataset.state;
  if (![...OPEN, "sold-out"].includes(state)) return state;
  if (level <= 0) return "sold-out";
  return level <= Number(place.dataset.lastUnits) ? "last-units" : "buy";
}

function hearProduct({ productId, locationId, available }) {
  if (locationId !== 0) return;
  for (const place of document.querySelectorAll(`[data-product="${productId}"]`)) {
    setLevel(place, available);
    place.dataset.state = productState(place, available);
    for (const button of document.querySelectorAll(`[data-buy="${productId}"]`)) {
      button.dataset.state = place.dataset.state;
      button.disabled = !OPEN.includes(place.dataset.state);
    }
  }
}

function hearCoupon({ couponId, remaining }) {
  for (const place of document.querySelectorAll(`[data-coupon="${couponId}"]`)) {
    setLevel(place, remaining);
    if (remaining <= 0 && place.dataset.eventState === "running") {
      place.dataset.eventState = "ended";
      place.querySelector("[data-status]").dataset.status = "ended";
      place.querySelectorAll("[data-draw]").forEach((button) => { button.disabled = true; });
    }
  }
}

function watch(after) {
  const ids = (name) => Array.from(document.querySelectorAll(`[data-${name}]`), (place) => place.dataset[name]);
  const query = new URLSearchParams();
  for (const name of ["product", "coupon"]) {
    const unique = [...new Set(ids(name))].slice(0, 100);
    if (unique.length > 0) query.set(`${name}Id`, unique.join(","));
  }
  if (query.size === 0) return;
  const stream = new EventSource(`/live/levels?${query}`);
  stream.addEventListener("levels", (event) => {
    after = 1000;
    document.documentElement.dataset.live = "";
    for (const level of JSON.parse(event.data).levels) {
      if ("productId" in level) hearProduct(level);
      else hearCoupon(level);
    }
  });
  stream.addEventListener("error", () => {
    // A stream that was refused does not come again by itself; one that broke does.
    delete document.documentElement.dataset.live;
    if (stream.readyState === EventSource.CLOSED) {
      setTimeout(() => watch(Math.min(after * 2, RETRY_MS_MAX)), after * (0.5 + Math.random()));
    }
  });
  window.addEventListener("pagehide", () => stream.close(), { once: true });
}

watch(1000);
