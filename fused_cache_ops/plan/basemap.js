(() => {
  const box = document.querySelector(".map");
  if (typeof maplibregl === "undefined") return;
  const plan = JSON.parse(document.getElementById("plan").textContent);
  const host = box.appendChild(Object.assign(document.createElement("div"), { className: "live" }));
  let map, seen = false;
  const giveUp = () => { if (map) map.remove(); host.remove(); };
  const [west, south, east, north] = plan.bounds;
  try {
    map = new maplibregl.Map({ container: host, style: plan.style, bounds: [[west, south], [east, north]] });
  } catch { return giveUp(); }
  map.addControl(new maplibregl.NavigationControl({ showCompass: false }));
  const color = (zoom) => getComputedStyle(document.querySelector(`.key .z${zoom}`)).stroke;
  const ids = (zoom) => [`fill-${zoom}`, `line-${zoom}`].filter((id) => map.getLayer(id));
  const place = (zoom, x, y) =>
    [(x / 2 ** zoom) * 360 - 180, (Math.atan(Math.sinh(Math.PI * (1 - (2 * y) / 2 ** zoom))) * 180) / Math.PI];
  const add = (zoom, type, coordinates, paint) => {
    const geometry = { type: type === "fill" ? "MultiPolygon" : "MultiLineString", coordinates };
    const data = { type: "Feature", properties: {}, geometry };
    const source = { type: "geojson", maxzoom: 22, tolerance: 0.1, data };
    map.addLayer({ id: `${type}-${zoom}`, source, type, paint });
  };
  const show = (zoom, checked) =>
    ids(zoom).forEach((id) => map.setLayoutProperty(id, "visibility", checked ? "visible" : "none"));
  const paint = () => plan.layers.forEach(({ zoom }) =>
    ids(zoom).forEach((id) => map.setPaintProperty(id, `${id.split("-")[0]}-color`, color(zoom))));
  map.on("data", (event) => {
    if (event.tile && event.tile.state === "loaded" && !/^(fill|line)-[0-9]+$/.test(event.sourceId)) seen = true;
  });
  map.on("error", () => {}); // a tile that is missing is no news
  map.once("load", () => {
    for (const { zoom, drawn, blocks, lines } of plan.layers) {
      const at = (x, y) => place(drawn, x, y);
      const ring = ([x, y, width, height]) =>
        [at(x, y), at(x, y + height), at(x + width, y + height), at(x + width, y), at(x, y)];
      if (blocks) {
        add(zoom, "fill", blocks.map((block) => [ring(block)]), { "fill-color": color(zoom), "fill-antialias": false });
      }
      const drawnLines = blocks ? blocks.map(ring) : lines.map(([x, y, right, bottom]) => [at(x, y), at(right, bottom)]);
      add(zoom, "line", drawnLines, { "line-color": color(zoom), "line-width": 2 });
      const checkbox = document.getElementById(`z${zoom}`);
      checkbox.addEventListener("change", () => show(zoom, checkbox.checked));
      show(zoom, checkbox.checked);
    }
    map.once("idle", () => {
      if (!seen) return giveUp(); // nothing of the basemap could be loaded: the drawing says more
      box.classList.add("is-live");
      map.resize();
      map.fitBounds([[west, south], [east, north]], { animate: false });
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
  });
})();
