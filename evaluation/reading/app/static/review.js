"use strict";
// Keeps what is typed: htmx posts the form on change and after pauses; here are the cases in which that fails.
(() => {
  const form = document.querySelector("form[hx-post]");
  if (!form) return;
  const saved = document.getElementById("saved");
  const address = form.getAttribute("hx-post");
  let typed = 0, sent = 0, kept = 0, again = 0, committed = false;  // counts of changes: made, sent, and known to be saved

  form.addEventListener("input", () => { typed += 1; });
  form.addEventListener("submit", () => { kept = typed; committed = true; });
  form.addEventListener("htmx:beforeRequest", (event) => {
    if (committed) event.preventDefault();
    else sent = typed;
  });

  const retry = () => {
    saved.textContent = "Not saved yet. Trying again …";
    clearTimeout(again);
    again = setTimeout(() => htmx.trigger(form, "save"), 2000);
  };
  form.addEventListener("htmx:sendError", retry);
  form.addEventListener("htmx:timeout", retry);
  form.addEventListener("htmx:responseError", (event) => {
    const status = event.detail.xhr.status;
    if (status >= 500) retry();
    else if (status === 401) saved.textContent = "Not saved: log in again in another tab, then type on here.";
    else if (status === 403) saved.textContent = "Not saved: this page is out of date. Copy what you typed, then load it again.";
    else if (status === 409) saved.textContent = "Not saved: this part is committed already.";
    else saved.textContent = "Not saved.";
  });
  form.addEventListener("htmx:afterOnLoad", (event) => {
    if (event.detail.xhr.status === 200) kept = sent;
  });

  // What was typed in the last half second before the page goes.
  const keep = () => {
    if (kept !== typed && navigator.sendBeacon(address, new FormData(form))) kept = typed;
  };
  window.addEventListener("pagehide", keep);
  document.addEventListener("visibilitychange", () => { if (document.visibilityState === "hidden") keep(); });
})();
