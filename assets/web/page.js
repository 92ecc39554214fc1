/* Runs in the page. Carries messages between the map's frame, the cards and the server:
   one choice of a place, shown the same everywhere. */
"use strict";

window.crossviewPage = (() => {
  const state = { rank: null, near: null, picking: false };
  let map = null;

  const frame = () => (map ? map.querySelector("iframe") : null);

  function send(message) {
    const target = frame();
    if (target && target.contentWindow) target.contentWindow.postMessage({ crossview: message }, "*");
  }

  /* A place was chosen somewhere: show it in the cards and on the map. */
  function select(rank) {
    state.rank = rank;
    for (const card of document.querySelectorAll("#candidates .cv-card")) {
      const chosen = Number(card.dataset.rank) === rank;
      card.classList.toggle("cv-chosen", chosen);
      card.setAttribute("aria-pressed", String(chosen));
    }
    send({ kind: "select", rank });
  }

  function showNear(near, picking) {
    state.near = near;
    state.picking = picking;
    send({ kind: "near", near });
    send({ kind: "pick", on: picking });
  }

  function attachMap(element, pick, aim) {
    map = element;
    window.addEventListener("message", (event) => {
      const target = element.querySelector("iframe");
      if (!target || event.source !== target.contentWindow) return;
      const message = event.data && event.data.crossview;
      if (!message) return;
      /* A new map knows nothing of the circle that the visitor is drawing. */
      if (message.kind === "ready" && (state.near || state.picking)) {
        showNear(state.near, state.picking);
      }
      if (message.kind === "select" && Number.isInteger(message.rank)) {
        select(message.rank);
        pick({ rank: message.rank });
      }
      if (message.kind === "place" && Number.isFinite(message.lat_deg) && Number.isFinite(message.lon_deg)) {
        aim({ lat_deg: message.lat_deg, lon_deg: message.lon_deg });
      }
    });
  }

  function attachButtons(element, selector, key, tell) {
    element.addEventListener("click", (event) => {
      const button = event.target.closest(selector);
      if (!button || !element.contains(button)) return;
      const value = Number(button.dataset[key]);
      if (key === "rank") select(value);
      tell({ [key]: value });
    });
  }

  /* On a phone the answer lies below the photo: go there. */
  function answered() {
    const first = document.querySelector("#candidates .cv-card");
    state.rank = first ? 1 : null;
    if (window.innerWidth < 700) {
      document.querySelector("#verdict").scrollIntoView({ behavior: "smooth", block: "start" });
    }
  }

  return { answered, attachMap, attachButtons, select, showNear };
})();
