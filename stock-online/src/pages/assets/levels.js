// Live levels: bars, numbers and buttons of the products and coupons on the page follow the stream of levels, and the
// clock when a sale or an event begins or ends. Nobody's page is loaded again for it: a crowd waits for that moment.

const format = new Intl.NumberFormat(document.documentElement.lang);
const OPEN = ["buy", "last-units"];
const RETRY_MS_MAX = 30000;

function setLevel(place, level) {
  const meter = place.querySelector("meter");
  if (meter) {
    if (level > meter.max) meter.max = level;
    meter.value = level;
  }
  place.dataset.level = level;
  const number = place.querySelector("[data-available]");
  if (number) number.textContent = format.format(level);
}

// A button is open or closed; while its form is under way it waits in either case.
function setButton(button, isOpen) {
  button.toggleAttribute("data-closed", !isOpen);
  button.disabled = !isOpen || "busy" in (button.form?.dataset ?? {});
}

function setState(place, state) {
  place.dataset.state = state;
  for (const button of document.querySelectorAll(`[data-buy="${place.dataset.product}"]`)) {
    // What a store has is another matter than what is left online.
    const isElsewhere = "elsewhere" in (button.form?.dataset ?? {});
    const shown = isElsewhere && [...OPEN, "sold-out"].includes(state) ? "buy" : state;
    button.dataset.state = shown;
    setButton(button, OPEN.includes(shown));
  }
}

function stateOf(place) {
  const level = Number(place.dataset.level);
  if (level <= 0) return "sold-out";
  return level <= Number(place.dataset.lastUnits) ? "last-units" : "buy";
}

function hearProduct({ productId, locationId, available }) {
  if (locationId !== 0) return;
  for (const place of document.querySelectorAll(`[data-product="${productId}"]`)) {
    setLevel(place, available);
    if ([...OPEN, "sold-out"].includes(place.dataset.state)) setState(place, stateOf(place));
  }
}

function setEvent(place, state) {
  place.dataset.eventState = state;
  place.querySelector("[data-status]").dataset.status = state;
  place.querySelectorAll("[data-draw]").forEach((button) => setButton(button, state === "running"));
}

function hearCoupon({ couponId, remaining }) {
  for (const place of document.querySelectorAll(`[data-coupon="${couponId}"]`)) {
    setLevel(place, remaining);
    if (remaining <= 0 && place.dataset.eventState === "running") setEvent(place, "ended");
  }
}

document.addEventListener("due", (event) => {
  const product = event.target.closest("[data-product]");
  const coupon = event.target.closest("[data-coupon]");
  if (!product && !coupon) return;
  const begins = event.detail === "starts";
  event.target.closest(".window").hidden = begins;
  const ends = (product ?? coupon).querySelector(".window[data-after]");
  if (begins && ends) ends.hidden = false;
  if (product) setState(product, begins ? stateOf(product) : "ended");
  else if (begins) setEvent(coupon, coupon.dataset.level === "0" ? "ended" : "running");
  else setEvent(coupon, "ended");
});

document.addEventListener("change", (event) => {
  const form = event.target.form;
  if (event.target.name !== "deliveryType" || !form) return;
  form.toggleAttribute("data-elsewhere", event.target.value !== "ONLINE");
  const id = form.querySelector("[data-buy]")?.dataset.buy;
  document.querySelectorAll(`[data-product="${id}"]`).forEach((place) => setState(place, place.dataset.state));
});

function address() {
  const query = new URLSearchParams();
  for (const name of ["product", "coupon"]) {
    const ids = Array.from(document.querySelectorAll(`[data-${name}]`), (place) => place.dataset[name]);
    const unique = [...new Set(ids)].slice(0, 100);
    if (unique.length > 0) query.set(`${name}Id`, unique.join(","));
  }
  return query.size === 0 ? null : `/live/levels?${query}`;
}

let stream = null;
let wait = 1000;

function close() {
  stream?.close();
  stream = null;
  delete document.documentElement.dataset.live;
}

// A browser has few connections to one site: a page that nobody looks at has none.
function open() {
  const at = address();
  if (stream || document.hidden || !at) return;
  const own = new EventSource(at);
  stream = own;
  own.addEventListener("levels", (event) => {
    wait = 1000;
    document.documentElement.dataset.live = "";
    for (const level of JSON.parse(event.data).levels) {
      if ("productId" in level) hearProduct(level);
      else hearCoupon(level);
    }
  });
  own.addEventListener("error", () => {
    delete document.documentElement.dataset.live;
    // A stream that was refused does not come again by itself; one that broke does.
    if (own.readyState === EventSource.CLOSED && own === stream) {
      close();
      setTimeout(open, wait * (0.5 + Math.random()));
      wait = Math.min(wait * 2, RETRY_MS_MAX);
    }
  });
}

document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
window.addEventListener("pagehide", close);
window.addEventListener("pageshow", open);
open();
