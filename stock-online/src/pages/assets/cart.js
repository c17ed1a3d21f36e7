// The cart: products and quantities, kept in this browser. The server draws the cart's page at its own prices.

const KEY = "cart";
const MOST = 100;

function read() {
  try {
    const lines = JSON.parse(localStorage.getItem(KEY) ?? "[]");
    return lines.filter(([id, quantity]) => id > 0 && quantity > 0).slice(0, MOST);
  } catch {
    return [];
  }
}

function write(lines) {
  localStorage.setItem(KEY, JSON.stringify(lines));
}

function set(id, quantity) {
  const others = read().filter(([known]) => known !== id);
  write(quantity > 0 ? [...others, [id, quantity]] : others);
}

const items = () => read().map(([id, quantity]) => `${id}x${quantity}`).join(",");

// A product's page: its units go into the cart.
for (const button of document.querySelectorAll("[data-cart-add]")) {
  button.addEventListener("click", () => {
    const id = Number(button.dataset.cartAdd);
    const field = button.form?.elements["orderProducts.0.quantity"];
    if (field && !field.reportValidity()) return;
    const before = read().find(([known]) => known === id)?.[1] ?? 0;
    set(id, before + Number(field?.value ?? 1));
    button.form.querySelector(".result").textContent = button.dataset.said;
  });
}

// The cart's page: its address says what this browser keeps.
const page = document.querySelector("[data-cart]");
if (page && page.dataset.cart !== items()) location.replace(`/cart?items=${items()}`);
for (const field of document.querySelectorAll("[data-cart-line]")) {
  const id = Number(field.dataset.cartLine);
  field.addEventListener("change", () => {
    if (field.checkValidity()) set(id, Number(field.value));
  });
}
for (const button of document.querySelectorAll("[data-cart-remove]")) {
  button.addEventListener("click", () => {
    set(Number(button.dataset.cartRemove), 0);
    location.replace(`/cart?items=${items()}`);
  });
}

// A checkout's page: what was just opened is no longer in the cart, and a deadline ends the page's truth.
if (document.querySelector("[data-cart-opened]")) write([]);
document.addEventListener("due", (event) => {
  if (event.detail === "checkout") setTimeout(() => location.reload(), 1000);
});
