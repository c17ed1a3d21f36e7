// Countdowns: <time datetime="…" data-countdown> shows how long it still is, beside when it is; with the value
// "reload" the page is shown anew when it is over, because what can be done has changed.

const format = new Intl.NumberFormat(document.documentElement.lang, { minimumIntegerDigits: 2 });

function left(ms) {
  const seconds = Math.max(0, Math.ceil(ms / 1000));
  const days = Math.floor(seconds / 86400);
  const parts = [Math.floor(seconds / 3600) % 24, Math.floor(seconds / 60) % 60, seconds % 60];
  const clock = parts.map((part) => format.format(part)).join(":");
  return days > 0 ? `${days} d ${clock}` : clock;
}

const clocks = Array.from(document.querySelectorAll("time[data-countdown]"), (time) => {
  const shown = document.createElement("span");
  shown.className = "countdown";
  shown.setAttribute("role", "timer");
  time.after(" ", shown);
  return { shown, time, at: Date.parse(time.dateTime) };
});

function tick() {
  for (const clock of clocks) {
    const rest = clock.at - Date.now();
    clock.shown.textContent = left(rest);
    if (rest <= 0 && clock.time.dataset.countdown === "reload" && !clock.isOver) {
      clock.isOver = true;
      // The server's clock decides: it may be a moment behind, and everybody's page comes at once.
      setTimeout(() => location.reload(), 300 + Math.random() * 1500);
    }
  }
}

if (clocks.length > 0) {
  tick();
  setInterval(tick, 1000);
}
