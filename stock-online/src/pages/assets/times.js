// Times: each is shown in the reader's zone, and one with data-countdown says how long it still is. When it is over it
// gives the event "due". The server's clock counts, whatever the reader's says.

const lang = document.documentElement.lang;
const digits = new Intl.NumberFormat(lang, { minimumIntegerDigits: 2 });
const days = new Intl.NumberFormat(lang, { style: "unit", unit: "day", unitDisplay: "long" });
const shown = new Intl.DateTimeFormat(lang, { dateStyle: "medium", timeStyle: "short" });

const serverNow = Number(document.documentElement.dataset.now);
const begun = performance.now();
const now = () => serverNow + performance.now() - begun;

function left(ms) {
  const seconds = Math.max(0, Math.ceil(ms / 1000));
  const whole = Math.floor(seconds / 86400);
  const parts = [Math.floor(seconds / 3600) % 24, Math.floor(seconds / 60) % 60, seconds % 60];
  const clock = parts.map((part) => digits.format(part)).join(":");
  return whole > 0 ? `${days.format(whole)} ${clock}` : clock;
}

for (const time of document.querySelectorAll("time[datetime]")) {
  const at = Date.parse(time.dateTime);
  if (!Number.isNaN(at)) time.textContent = shown.format(at);
}

const clocks = Array.from(document.querySelectorAll("time[data-countdown]"), (time) => {
  const place = document.createElement("span");
  place.className = "countdown";
  place.setAttribute("role", "timer");
  time.after(" ", place);
  return { place, time, at: Date.parse(time.dateTime), isOver: false };
});

function tick() {
  for (const clock of clocks) {
    const rest = clock.at - now();
    clock.place.textContent = left(rest);
    if (rest <= 0 && !clock.isOver) {
      clock.isOver = true;
      clock.time.dispatchEvent(new CustomEvent("due", { bubbles: true, detail: clock.time.dataset.countdown }));
    }
  }
}

if (clocks.length > 0) {
  tick();
  setInterval(tick, 1000);
}
