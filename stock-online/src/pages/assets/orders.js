// Orders: what a form's order costs is what its buyer sees, and an order's status is followed until it is final.

const FINAL = ["SUCCESS", "FAIL", "CANCEL"];
const lang = document.documentElement.lang;
const format = new Intl.NumberFormat(lang);
const money = (amount) => (lang === "ko" ? `${format.format(amount)}원` : `₩${format.format(amount)}`);

// The rules of the interface, in integers: the rate is in hundredths of a percent.
function totalOf(form) {
  const field = (name) => form.elements[name];
  let sum = 0;
  for (let line = 0; field(`orderProducts.${line}.unitPrice`); line += 1) {
    sum += Number(field(`orderProducts.${line}.unitPrice`).value) * Number(field(`orderProducts.${line}.quantity`).value);
  }
  const coupon = field("couponCode")?.selectedOptions[0]?.dataset ?? {};
  let discount = 0;
  if (coupon.amount) discount = Math.min(Number(coupon.amount), sum);
  if (coupon.rate) {
    const hundredths = BigInt(Math.round(Number(coupon.rate) * 100));
    discount = Number((BigInt(sum) * hundredths) / 10000n);
  }
  return sum - discount - Number(field("usePoints")?.value || 0);
}

function follow(form) {
  const shown = form.querySelector("[data-total]");
  if (shown) {
    // What cannot be ordered has no price.
    const total = form.checkValidity() ? totalOf(form) : -1;
    shown.value = total;
    shown.textContent = total < 0 ? "–" : money(total);
  }
  const store = form.querySelector("[data-for-store]");
  if (store) {
    const isStore = form.elements.deliveryType.value !== "ONLINE";
    store.hidden = !isStore;
    form.elements.storeId.disabled = !isStore;
  }
}

for (const form of document.querySelectorAll("form[data-order]")) {
  form.addEventListener("prepare", (event) => { event.detail.totalAmount = totalOf(form); });
  for (const name of ["input", "change"]) form.addEventListener(name, () => follow(form));
  follow(form);
}

async function poll(badge, wait) {
  if (FINAL.includes(badge.dataset.status)) return;
  const response = await fetch(`/api/orders/${badge.dataset.orderStatus}`).catch(() => null);
  if (response?.ok) {
    const order = await response.json();
    badge.dataset.status = order.orderStatus;
  }
  setTimeout(() => poll(badge, Math.min(wait * 1.5, 10000)), wait);
}

document.querySelectorAll("[data-order-status]").forEach((badge) => setTimeout(() => poll(badge, 300), 200));
