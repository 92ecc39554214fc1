/* Runs inside the map's frame. It tells the page which place was clicked, and shows what the page
   says: the chosen place, the circle to search in, whether a click on the map moves that circle. */
"use strict";

function crossviewMap(map, settings) {
  const markers = new Map();
  const shapes = [];
  let circle = null;
  let picking = settings.picking;

  map.eachLayer((layer) => {
    if (layer instanceof L.Marker && layer.options.rank) {
      markers.set(layer.options.rank, layer);
      layer.on("click", () => tell({ kind: "select", rank: layer.options.rank }));
    } else if (layer.feature && layer.feature.properties.kind) {
      shapes.push(layer);
      const { kind, rank } = layer.feature.properties;
      if (kind === "footprint") {
        layer.on("click", (event) => {
          if (!picking) {
            L.DomEvent.stopPropagation(event);
            tell({ kind: "select", rank });
          }
        });
      }
    }
  });

  function tell(message) {
    window.parent.postMessage({ crossview: message }, "*");
  }

  function select(rank, move) {
    for (const [other, marker] of markers) {
      const element = marker.getElement();
      if (element) element.classList.toggle("cv-chosen", other === rank);
      marker.setZIndexOffset(other === rank ? 5000 : 1000 - 10 * other);
    }
    for (const shape of shapes) {
      const { kind, rank: owner } = shape.feature.properties;
      const chosen = owner === rank;
      if (kind === "footprint") {
        shape.setStyle({ color: chosen ? "#ff5a36" : "#ffffff", weight: chosen ? 3 : 1.5 });
        if (chosen) shape.bringToFront();
      } else if (kind === "wedge") {
        shape.setStyle({ opacity: chosen ? 0.9 : 0, fillOpacity: chosen ? 0.38 : 0 });
      } else if (kind === "radius") {
        shape.setStyle({ opacity: chosen ? 0.95 : 0, fillOpacity: chosen ? 0.25 : 0 });
      }
    }
    const marker = markers.get(rank);
    document.body.dataset.selected = marker ? String(rank) : "";
    if (move && marker && !map.getBounds().pad(-0.1).contains(marker.getLatLng())) {
      map.panTo(marker.getLatLng());
    }
  }

  function draw(near) {
    if (circle) circle.remove();
    circle = null;
    document.body.dataset.near = near ? JSON.stringify(near) : "";
    if (!near) return;
    circle = L.circle([near.lat_deg, near.lon_deg], {
      radius: near.radius_m,
      color: "#38e1ff",
      weight: 2,
      dashArray: "6 6",
      fillOpacity: 0.06,
      interactive: false,
    }).addTo(map);
  }

  function pick(on) {
    picking = on;
    map.getContainer().classList.toggle("cv-picking", on);
  }

  map.on("click", (event) => {
    if (!picking) return;
    tell({ kind: "place", lat_deg: event.latlng.lat, lon_deg: event.latlng.lng });
  });

  window.addEventListener("message", (event) => {
    if (event.source !== window.parent || !event.data || !event.data.crossview) return;
    const message = event.data.crossview;
    if (message.kind === "select") select(message.rank, true);
    if (message.kind === "near") draw(message.near);
    if (message.kind === "pick") pick(message.on);
  });

  L.control.scale({ imperial: false }).addTo(map);

  const look = () => {
    map.invalidateSize();
    map.fitBounds(settings.view, { animate: false, padding: [12, 12], maxZoom: 18.5 });
  };
  look();
  /* A frame in a hidden tab has no size yet: set the view once it has one. */
  let seen = map.getSize().x > 0;
  new ResizeObserver(() => {
    if (seen) map.invalidateSize();
    else look();
    seen = map.getSize().x > 0;
  }).observe(map.getContainer());
  /* At once: a view that still glides into its bounds carries markers away from under a click. */
  const limits = L.latLngBounds(settings.bounds).pad(0.4);
  map.panInsideBounds(limits, { animate: false });
  map.setMaxBounds(limits);
  select(settings.selected, false);
  draw(settings.near);
  pick(settings.picking);
  tell({ kind: "ready" });
}
