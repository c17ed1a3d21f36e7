// The dashboard: what moves comes drawn from the server, once a second.

const place = document.getElementById("live");
const stale = document.getElementById("stale");

function watch(after) {
  const stream = new EventSource("/dashboard/live");
  stream.addEventListener("live", (event) => {
    after = 1000;
    stale.hidden = true;
    document.documentElement.dataset.live = "";
    // Whoever is reading along with a keyboard keeps their place.
    const focused = place.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
    place.innerHTML = event.data;
    if (focused) place.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus();
  });
  stream.addEventListener("error", () => {
    stale.hidden = false;
    if (stream.readyState === EventSource.CLOSED) {
      setTimeout(() => watch(Math.min(after * 2, 30000)), after);
    }
  });
  window.addEventListener("pagehide", () => stream.close(), { once: true });
}

watch(1000);
