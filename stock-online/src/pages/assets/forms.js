// Forms that send JSON to the interface.
//
//   <form data-call="POST /api/products/{id}/stock" data-keyed data-done="reload" data-said="…">
//     <input name="change" data-as="integer">      a member of the body; dots in a name nest it
//     <input name="id" data-in="path">             fills {id}; data-in="query" goes behind the ?
//     <input name="storeId" data-optional>         left out when it is empty
//     <input type="file" data-in="body">           is the body itself
//
// data-keyed sends an Idempotency-Key. It is kept, across reloads and a login too, until an answer says what became of
// this very request, so that pressing again after a broken connection never does the thing twice. data-done is where to go then: a path ({orderId} is a member of the
// answer), "reload", or nothing: then data-said is shown, with the answer's member that data-say names.
// Before it is sent, a form gives the event "prepare" with its body.

const problems = JSON.parse(document.body.dataset.problems || "{}");
const SAID = "said";
// Answers that say nothing about what became of the request, or of its first attempt.
const OPEN_STATUSES = [401, 403, 408, 429];

function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function put(body, name, value) {
  const parts = name.split(".");
  let place = body;
  parts.forEach((part, index) => {
    if (index === parts.length - 1) {
      place[part] = value;
    } else {
      place[part] ??= /^\d+$/.test(parts[index + 1]) ? [] : {};
      place = place[part];
    }
  });
}

function valueOf(field) {
  switch (field.dataset.as) {
    case "integer":
    case "number":
      return field.value === "" ? null : Number(field.value);
    case "boolean":
      return field.type === "checkbox" ? field.checked : field.value === "true";
    case "time":
      return field.value === "" ? null : new Date(field.value).toISOString();
    case "list":
      return field.value.split(",").map((part) => part.trim()).filter(Boolean);
    default:
      return field.value;
  }
}

function read(form) {
  const [method, template] = form.dataset.call.split(" ");
  let path = template;
  let raw = null;
  const body = {};
  const query = new URLSearchParams();
  for (const field of form.elements) {
    if (!field.name || field.disabled || (field.type === "radio" && !field.checked)) {
      continue;
    }
    const value = valueOf(field);
    const isEmpty = value === "" || value === null;
    if (field.dataset.in === "path") {
      path = path.replace(`{${field.name}}`, encodeURIComponent(value));
    } else if (field.dataset.in === "query") {
      if (!isEmpty) query.set(field.name, value);
    } else if (field.dataset.in === "body") {
      raw = field.files[0];
    } else if (!(isEmpty && "optional" in field.dataset)) {
      put(body, field.name, value);
    }
  }
  form.dispatchEvent(new CustomEvent("prepare", { detail: body, bubbles: true }));
  const search = query.toString();
  return { method, path: search ? `${path}?${search}` : path, body, raw };
}

function clear(form) {
  form.querySelectorAll("[aria-invalid]").forEach((field) => field.removeAttribute("aria-invalid"));
  form.querySelectorAll(".wrong").forEach((text) => text.remove());
}

function show(form, text, isWrong) {
  const place = form.querySelector(".result");
  if (place) {
    place.textContent = text;
    place.classList.toggle("is-wrong", Boolean(isWrong));
  }
}

function showProblem(form, problem) {
  let text = problems[problem.code] ?? problem.detail ?? problem.title ?? String(problem.status);
  for (const error of problem.errors ?? []) {
    const name = error.pointer.slice(1).replaceAll("/", ".");
    const field = form.elements[name];
    if (field instanceof HTMLElement && field.type !== "hidden") {
      field.setAttribute("aria-invalid", "true");
      const wrong = document.createElement("p");
      wrong.className = "wrong";
      wrong.textContent = error.message;
      field.insertAdjacentElement("afterend", wrong);
    } else if (error.line) {
      text += `\n${error.line}: ${error.message}`;
    } else if (!text.includes(error.message)) {
      text += `: ${error.message}`;
    }
  }
  show(form, text, true);
  form.querySelector("[aria-invalid]")?.focus();
}

// Whether another page comes.
function done(form, answer) {
  const filled = (text) => text.replace(/\{(\w+)\}/g, (_, name) => encodeURIComponent(answer?.[name] ?? ""));
  const said = [form.dataset.said, answer?.[form.dataset.say]].filter(Boolean).join(" ");
  const target = form.dataset.done;
  if (target) {
    if (said) sessionStorage.setItem(SAID, said);
    if (target === "reload") location.reload();
    else location.assign(filled(target));
    return true;
  }
  if ("answer" in form.dataset) {
    show(form, [said, JSON.stringify(answer, null, 2)].filter(Boolean).join("\n"));
  } else {
    show(form, said);
  }
  // What is had once is not offered again.
  if ("once" in form.dataset) form.querySelectorAll("button").forEach((button) => button.remove());
  return false;
}

// Under which name a request's key is kept: what it asks for.
function keyName(method, path, body) {
  return `key ${method} ${path} ${JSON.stringify(body)}`;
}

async function send(form) {
  const { method, path, body, raw } = read(form);
  const headers = { Accept: "application/json" };
  const name = keyName(method, path, raw ? [raw.name, raw.size, raw.lastModified] : body);
  if ("keyed" in form.dataset) {
    headers["Idempotency-Key"] = sessionStorage.getItem(name) ?? newKey();
    sessionStorage.setItem(name, headers["Idempotency-Key"]);
  }
  const request = { method, headers, credentials: "same-origin" };
  if (raw) {
    headers["Content-Type"] = "text/csv";
    request.body = raw;
  } else if (method !== "GET" && method !== "DELETE") {
    headers["Content-Type"] = "application/json";
    request.body = JSON.stringify(body);
  }
  const response = await fetch(path, request);
  const text = await response.text();
  const answer = text && response.headers.get("content-type")?.includes("json") ? JSON.parse(text) : null;
  const isOpen = response.status >= 500 || OPEN_STATUSES.includes(response.status) || answer?.code === "REQUEST_IN_PROGRESS";
  if (!isOpen) sessionStorage.removeItem(name);
  return { response, answer };
}

// A form that is under way is pressed by nobody; what is closed stays closed.
function setBusy(form, isBusy) {
  form.toggleAttribute("data-busy", isBusy);
  form.querySelectorAll("button").forEach((button) => {
    button.disabled = isBusy || "closed" in button.dataset;
  });
}

async function submit(form) {
  if ("busy" in form.dataset || (form.dataset.confirm && !confirm(form.dataset.confirm))) return;
  clear(form);
  show(form, document.body.dataset.waiting);
  setBusy(form, true);
  let leaves = false;
  try {
    const { response, answer } = await send(form);
    if (response.ok) {
      leaves = done(form, answer);
    } else if (response.status === 401) {
      leaves = true;
      location.assign(document.body.dataset.login);
    } else {
      showProblem(form, answer ?? { status: response.status });
    }
  } catch (error) {
    show(form, document.body.dataset.unreachable, true);
  }
  // While the next page is on its way, this one does nothing more.
  if (!leaves) setBusy(form, false);
}

// Back from the next page: the form can be used again.
window.addEventListener("pageshow", (event) => {
  if (event.persisted) {
    document.querySelectorAll("form[data-busy]").forEach((form) => {
      setBusy(form, false);
      show(form, "");
    });
  }
});

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form instanceof HTMLFormElement && form.dataset.call) {
    event.preventDefault();
    submit(form);
  }
});

const said = sessionStorage.getItem(SAID);
if (said) {
  sessionStorage.removeItem(SAID);
  const notice = document.getElementById("notice");
  notice.hidden = false;
  notice.textContent = said;
}
document.documentElement.dataset.ready = "";
