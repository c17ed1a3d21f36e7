// The dashboard: what moves comes drawn from the server, once a second.

const place = document.getElementById("live");
const stale = document.getElementById("stale");
let stream = null;
let wait = 1000;

function close() {
  stream?.close();
  stream = null;
}

function show(html) {
  // Whoever is reading along with a keyboard or has marked something keeps their place.
  if (!document.getSelection().isCollapsed) return;
  const focused = place.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  place.innerHTML = html;
  if (focused) place.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus();
}

function open() {
  if (stream || document.hidden) return;
  const own = new EventSource("/dashboard/live");
  stream = own;
  own.addEventListener("live", (event) => {
    wait = 1000;
    stale.hidden = true;
    document.documentElement.dataset.live = "";
    show(event.data);
  });
  own.addEventListener("error", () => {
    if (own.readyState === EventSource.CLOSED && own === stream) {
      stale.hidden = false;
      close();
      setTimeout(open, wait);
      wait = Math.min(wait * 2, 30000);
    }
  });
}

document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
window.addEventListener("pagehide", close);
window.addEventListener("pageshow", open);
open();
